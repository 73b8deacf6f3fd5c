use super::*;

const HEADER: &str = "Company Account,Merchant Account,Psp Reference,Merchant Reference,Payment Method,Creation Date,TimeZone,\
                      Type,Modification Reference,Gross Currency,Gross Debit (GC),Gross Credit (GC),Exchange Rate,Net Currency,\
                      Net Debit (NC),Net Credit (NC),Commission (NC),Markup (NC),Scheme Fees (NC),Interchange (NC),\
                      Payment Method Variant,Modification Merchant Reference,Batch Number";
const IDS: &str = "0198c5a1000070008000000000000001-0198c5a1000070008000000000000002";
const OTHER: &str = "0198c5a1000070008000000000000001-0198c5a1000070008000000000000003";

struct Record<'a> {
    account: &'a str,
    reference: String,
    r#type: &'a str,
    currency: &'a str,
    debit: &'a str,
    credit: &'a str,
    operation: String,
}

impl Default for Record<'_> {
    fn default() -> Self {
        Self {
            account: "Shop",
            reference: format!("{IDS}-purchase"),
            r#type: "Settled",
            currency: "EUR",
            debit: "",
            credit: "10.00",
            operation: String::new(),
        }
    }
}

impl Record<'_> {
    fn text(&self) -> String {
        let Self {
            account,
            reference,
            r#type,
            currency,
            debit,
            credit,
            operation,
        } = self;
        format!(
            "Company,{account},PSP1,{reference},visa,2026-01-05 10:22:31,CET,{type},MOD1,{currency},{debit},{credit},1,EUR,,9.70,\
             0.10,0.10,0.05,0.05,visadebit,{operation},7"
        )
    }
}

fn read(records: &[String]) -> Result<Vec<ExportLine>, ExportError> {
    let mut reader = source("Shop").reader;
    let mut lines = reader.read(format!("{HEADER}\r\n{}\r\n", records.join("\r\n")).as_bytes())?;
    lines.extend(reader.finish()?);
    Ok(lines)
}

fn settled(record: &Record<'_>) -> SettledLine {
    match read(&[record.text()]).unwrap().as_slice() {
        [ExportLine::Settled(line)] => line.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn s78_a_settled_purchase_is_named_by_our_reference() {
    let line = settled(&Record::default());
    assert_eq!((line.kind, line.amount), (SettledKind::Captured, 1_000));
    assert_eq!(line.at.unwrap().to_rfc3339(), "2026-01-05T09:22:31+00:00");
    let names = line.names;
    assert_eq!(
        names.payment.unwrap().0.simple().to_string(),
        IDS.split('-').next().unwrap()
    );
    assert_eq!(
        names.transaction.unwrap().0.simple().to_string(),
        IDS.split('-').nth(1).unwrap()
    );
    assert_eq!(names.operation.unwrap().as_str(), "MOD1");
    assert_eq!(names.payment_reference.unwrap().as_str(), "PSP1");
}

#[test]
fn s78_operations_are_named_by_their_own_reference_or_adyens() {
    let capture = settled(&Record {
        reference: format!("{IDS}-authorization"),
        operation: format!("{OTHER}-capture"),
        ..Record::default()
    });
    let named = capture.names.transaction.unwrap().0.simple().to_string();
    assert_eq!(named, OTHER.split('-').nth(1).unwrap());
    assert_eq!(capture.names.payment_reference, None);
    // Made at Adyen: no reference of ours, and the payment's is that of another kind.
    let refund = settled(&Record {
        r#type: "Refunded",
        debit: "4.00",
        credit: "",
        operation: "by hand".to_owned(),
        ..Record::default()
    });
    assert_eq!((refund.kind, refund.amount), (SettledKind::Refunded, 400));
    assert_eq!(refund.names.transaction, None);
    assert_eq!(refund.names.operation.unwrap().as_str(), "MOD1");
    assert!(refund.names.payment.is_some());
}

#[test]
fn s78_every_type_has_its_direction() {
    for (r#type, debit, credit, kind, amount) in [
        ("Settled", "", "10.00", SettledKind::Captured, 1_000),
        ("Refunded", "10.00", "", SettledKind::Refunded, 1_000),
        (
            "RefundedReversed",
            "",
            "10.00",
            SettledKind::Refunded,
            -1_000,
        ),
        (
            "Chargeback",
            "10.00",
            "0.00",
            SettledKind::ChargedBack,
            1_000,
        ),
        (
            "SecondChargeback",
            "10.00",
            "",
            SettledKind::ChargedBack,
            1_000,
        ),
        (
            "ChargebackReversed",
            "",
            "10.00",
            SettledKind::ChargebackReversed,
            1_000,
        ),
    ] {
        let line = settled(&Record {
            r#type,
            debit,
            credit,
            ..Record::default()
        });
        assert_eq!((line.kind, line.amount), (kind, amount), "{type}");
        let second = r#type == "SecondChargeback";
        let named = line.names.operation.unwrap();
        assert_eq!(named.as_str(), if second { "MOD1/second" } else { "MOD1" });
    }
}

#[test]
fn s78_types_that_move_no_money_of_a_customer_are_passed_and_unknown_ones_told() {
    for r#type in OTHERS {
        let passed = read(&[Record {
            r#type,
            credit: "",
            ..Record::default()
        }
        .text()])
        .unwrap();
        assert_eq!(passed, [ExportLine::Passed { at: None }], "{type}");
    }
    let unknown = read(&[Record {
        r#type: "SettledReversed",
        ..Record::default()
    }
    .text()])
    .unwrap();
    assert!(matches!(
        unknown.as_slice(),
        [ExportLine::Unknown { line: 2, .. }]
    ));
    let others = Record {
        account: "Other",
        r#type: "Anything",
        ..Record::default()
    };
    assert_eq!(
        read(&[others.text()]).unwrap(),
        [ExportLine::Passed { at: None }]
    );
}

#[test]
fn s78_amounts_are_in_the_payments_currency_and_exact() {
    for (currency, credit, amount) in [
        ("JPY", "500", 500),
        ("ISK", "500.00", 500),
        ("KWD", "1.234", 1_234),
    ] {
        let line = settled(&Record {
            currency,
            credit,
            ..Record::default()
        });
        assert_eq!((line.amount, line.currency.code()), (amount, currency));
    }
    let good = Record::default().text();
    for (from, to, column, problem) in [
        (",10.00,", ",10.001,", CREDIT, ExportProblem::Amount),
        (",10.00,", ",,", CREDIT, ExportProblem::Amount),
        (
            ",MOD1,EUR,",
            ",MOD1,EURO,",
            CURRENCY,
            ExportProblem::Currency,
        ),
        (
            "2026-01-05 10:22:31",
            "05/01/2026",
            CREATED,
            ExportProblem::Time,
        ),
        ("MOD1", "MOD 1", MODIFICATION, ExportProblem::Reference),
    ] {
        let error = read(&[good.clone(), good.replacen(from, to, 1)]).unwrap_err();
        assert_eq!(error, ExportError::column(3, column, problem), "{to}");
    }
}

#[test]
fn s78_a_zone_that_is_not_known_leaves_the_time_open() {
    let text = Record::default().text().replace(",CET,", ",XYZ,");
    let lines = read(&[text]).unwrap();
    assert!(matches!(
        lines.as_slice(),
        [ExportLine::Settled(SettledLine { at: None, .. })]
    ));
}
