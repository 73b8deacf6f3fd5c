use quittance_domain::reconciliation::SettlementReader as _;

use super::*;

const HEADER: &str = "balance_transaction_id,created_utc,available_on_utc,currency,gross,fee,net,reporting_category,source_id,\
                      description,customer_facing_amount,customer_facing_currency,charge_id,payment_intent_id,\
                      payment_metadata[quittance_payment],payment_metadata[quittance_transaction],\
                      payment_metadata[quittance_capture],refund_metadata[quittance_transaction]";
const PAYMENT: &str = "0198c5a1-0000-7000-8000-000000000001";
const OPENING: &str = "0198c5a1-0000-7000-8000-000000000002";
const CAPTURE: &str = "0198c5a1-0000-7000-8000-000000000003";

fn read(records: &[&str]) -> Result<Vec<ExportLine>, ExportError> {
    let mut reader = Table::new(BalanceTransactions);
    let mut lines = reader.read(format!("{HEADER}\n{}\n", records.join("\n")).as_bytes())?;
    lines.extend(reader.finish()?);
    Ok(lines)
}

/// A record: category, source, gross and its currency, what the customer saw, and the rest.
fn record(category: &str, source: &str, gross: &str, facing: &str, rest: &str) -> String {
    format!(
        "txn_1,2026-01-05 10:22:31,2026-01-07 00:00:00,usd,{gross},0.30,0.00,{category},{source},\"Order, 7\",{facing},{rest}"
    )
}

fn settled(record: &str) -> SettledLine {
    match read(&[record]).unwrap().as_slice() {
        [ExportLine::Settled(line)] => line.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn s78_a_charge_is_what_the_customer_paid_before_fees() {
    let rest = format!("ch_1,pi_1,{PAYMENT},{OPENING},,");
    let line = settled(&record("charge", "ch_1", "11.12", "10.00,eur", &rest));
    assert_eq!((line.kind, line.amount), (SettledKind::Captured, 1_000));
    assert_eq!(
        (line.currency.code(), line.in_payout_currency),
        ("EUR", false)
    );
    assert_eq!(line.at.unwrap().to_rfc3339(), "2026-01-05T10:22:31+00:00");
    let names = line.names;
    assert_eq!(names.payment.unwrap().to_string(), PAYMENT);
    assert_eq!(names.transaction.unwrap().to_string(), OPENING);
    assert_eq!(names.operation.unwrap().as_str(), "ch_1");
    assert_eq!(names.payment_reference.unwrap().as_str(), "pi_1");
}

#[test]
fn s78_what_was_captured_in_part_is_two_lines_of_one_charge() {
    let rest = format!("ch_1,pi_1,{PAYMENT},{OPENING},{CAPTURE},");
    let all = settled(&record("charge", "ch_1", "10.00", "10.00,usd", &rest));
    let back = settled(&record(
        "partial_capture_reversal",
        "re_9",
        "-6.00",
        "6.00,usd",
        &rest,
    ));
    assert_eq!((all.amount, back.amount), (1_000, -600));
    assert_eq!((all.returns_rest, back.returns_rest), (false, true));
    assert_eq!(all.names, back.names);
    assert_eq!(all.names.transaction.unwrap().to_string(), CAPTURE);
}

#[test]
fn s78_every_category_has_its_direction() {
    for (category, gross, kind, amount) in [
        ("charge", "10.00", SettledKind::Captured, 1_000),
        ("charge_failure", "-10.00", SettledKind::Captured, -1_000),
        ("refund", "-10.00", SettledKind::Refunded, 1_000),
        ("refund_failure", "10.00", SettledKind::Refunded, -1_000),
        ("dispute", "-10.00", SettledKind::ChargedBack, 1_000),
        (
            "dispute_reversal",
            "10.00",
            SettledKind::ChargebackReversed,
            1_000,
        ),
    ] {
        for facing in ["10.00,usd", "-10.00,usd", ","] {
            let line = settled(&record(category, "x_1", gross, facing, ",,,,,"));
            assert_eq!(
                (line.kind, line.amount),
                (kind, amount),
                "{category} {facing}"
            );
            assert_eq!(line.in_payout_currency, facing == ",");
            assert!(!line.returns_rest, "{category}");
        }
    }
    for other in OTHERS {
        let passed = read(&[&record(other, "po_1", "nonsense", ",", ",,,,,")]).unwrap();
        assert!(
            matches!(passed.as_slice(), [ExportLine::Passed { at: Some(_) }]),
            "{other}"
        );
    }
    let unknown = read(&[&record("brand_new", "x", "1.00", ",", ",,,,,")]).unwrap();
    let named = "brand_new".to_owned();
    assert_eq!(unknown, [ExportLine::Unknown { line: 2, named }]);
}

#[test]
fn s78_what_cannot_be_read_is_named_by_line_and_column() {
    let good = record("charge", "ch_1", "10.00", ",", ",,,,,");
    for (bad, column, problem) in [
        (
            good.replace("10.00", "10.005"),
            GROSS,
            ExportProblem::Amount,
        ),
        (good.replace("10.00", "1e3"), GROSS, ExportProblem::Amount),
        (
            good.replace("usd", "euros"),
            CURRENCY,
            ExportProblem::Currency,
        ),
        (
            good.replace("10:22:31", "10.22"),
            CREATED,
            ExportProblem::Time,
        ),
        (good.replace("ch_1", ""), SOURCE, ExportProblem::Empty),
        (
            good.replace("ch_1", "ch 1"),
            SOURCE,
            ExportProblem::Reference,
        ),
        (
            good.replace(",,", ",10.0x,usd")
                .replace("usd,,,,,", "usd,,,,"),
            FACING_AMOUNT,
            ExportProblem::Amount,
        ),
    ] {
        let error = read(&[&good, &bad]).unwrap_err();
        if error.column.is_none() {
            // Another number of fields: still the line.
            assert_eq!(error.line, 3, "{bad}");
            continue;
        }
        assert_eq!(error, ExportError::column(3, column, problem), "{bad}");
    }
}

/// What would be settled of a report that nothing can be matched by is false: every purchase extra, none of ours there.
#[test]
fn s78_a_report_without_the_columns_that_name_our_operations_is_refused() {
    for (header, missing) in [
        // The dashboard's own export cannot tell a partial capture from a refund.
        (
            "id,Type,Source,Amount,Fee,Net,Currency,Created (UTC)",
            CREATED,
        ),
        (
            "created_utc,currency,gross,reporting_category,source_id",
            CHARGE,
        ),
        (
            "created_utc,currency,gross,reporting_category,source_id,payment_intent_id",
            CHARGE,
        ),
        (
            "created_utc,currency,gross,reporting_category,source_id,charge_id",
            INTENT,
        ),
    ] {
        let mut table = Table::new(BalanceTransactions);
        let error = table.read(format!("{header}\n").as_bytes()).unwrap_err();
        let expected = ExportError::column(1, missing, ExportProblem::MissingColumn);
        assert_eq!(error, expected, "{header}");
    }
}
