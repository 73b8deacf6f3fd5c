//! The mutations: one defect each, as a piece of the product's text and what it becomes.

/// One defect.
pub struct Mutation {
    /// What it breaks.
    pub breaks: &'static str,
    /// The defect, in words.
    pub defect: &'static str,
    /// In which file, from the root of the workspace.
    pub file: &'static str,
    /// The text, which the file holds exactly once.
    pub text: &'static str,
    /// What it becomes.
    pub becomes: &'static str,
    /// The tests that must notice, as arguments of `cargo test`.
    pub tests: &'static [&'static str],
}

const FLOWS: &[&str] = &["-p", "quittance-domain", "-p", "quittance-simulation"];
const STORE: &[&str] = &["-p", "quittance-store", "--tests"];
const ADAPTERS: &[&str] = &["-p", "quittance-providers", "--lib"];

const OUTBOX: &str = "crates/store/src/outbox.rs";
const COMMAND: &str = "crates/domain/src/flows/command.rs";
const SEND: &str = "crates/domain/src/flows/send.rs";
const RECOVER: &str = "crates/domain/src/flows/recover.rs";
const ATTEMPT: &str = "crates/domain/src/decide/attempt.rs";
const RESEND: &str = "crates/domain/src/decide/resend.rs";

pub const MUTATIONS: &[Mutation] = &[
    Mutation {
        breaks: "I1",
        defect: "a payment whose acceptance is not known to be committed is sent",
        file: COMMAND,
        text: "            Err(error) => Err(accept_error(error)),
        }
    }

    fn accept_new(",
        becomes: "            Err(_) => {
                let record = change.apply_to(None);
                self.finish(caller, record, (&change, place), report).await
            }
        }
    }

    fn accept_new(",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I2",
        defect: "a resend carries other bytes",
        file: ATTEMPT,
        text: "    transaction.attempts += 1;\n",
        becomes: "    transaction.attempts += 1;
    if let Some(request) = &mut transaction.request {
        let mut bytes = request.bytes.expose().clone();
        bytes.push(b' ');
        request.bytes = Sensitive::new(bytes);
    }
",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I3",
        defect: "a lookup is believed while a request may still arrive",
        file: RESEND,
        text: "        (seen <= now).then(",
        becomes: "        let _ = seen <= now;\n        true.then(",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I3",
        defect: "recovery that gives up calls the transaction failed",
        file: "crates/domain/src/decide/recover.rs",
        text: "    step.edit(|transaction| transaction.next_step_at = None);
    step.open_case",
        becomes: "    step.edit(|transaction| transaction.next_step_at = None);
    step.end(TransactionState::Failed, Some(Cause::NotProcessed));
    step.open_case",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I3",
        defect: "a key that the provider has forgotten is relied upon",
        file: RESEND,
        text: "        (age < kept).then(",
        becomes: "        let _ = age < kept;\n        true.then(",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I4",
        defect: "a refusal after an unknown outcome is believed",
        file: ATTEMPT,
        text: "    if transaction.ever_unknown {",
        becomes: "    if transaction.ever_unknown && transaction.attempts == 0 {",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I4",
        defect: "a payment of unknown outcome goes to the next account",
        file: "crates/domain/src/transaction.rs",
        text: "        !self.ever_unknown && self.provider_reference.is_none() && self.lease_until.is_none()",
        becomes: "        self.provider_reference.is_none() && self.lease_until.is_none()",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I4",
        defect: "a lost sender is taken for one that sent nothing",
        file: "crates/domain/src/decide/recover.rs",
        text: "        transaction.ever_unknown = true;
        // Not the lease's end",
        becomes: "        transaction.lease_until = None;
        // Not the lease's end",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I5",
        defect: "a refund may exceed what is left",
        file: "crates/domain/src/decide/command.rs",
        text: "    if amount > left || amount == 0 {
        return Err(Rejection::ExceedsRefundable { left }.into());",
        becomes: "    if amount == 0 {
        return Err(Rejection::ExceedsRefundable { left }.into());",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I5",
        defect: "a refund is not reserved when it is accepted",
        file: "crates/domain/src/decide/command.rs",
        text: "    step.payment.amounts.refund_pending += amount;\n",
        becomes: "",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I6",
        defect: "a command is not found under its key",
        file: "crates/domain/src/decide/step.rs",
        text: "        let idempotency = ask.map(",
        becomes: "        let idempotency = ask.filter(|_| false).map(",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I6",
        defect: "a different request under a known key is answered",
        file: "crates/domain/src/flows/replay.rs",
        text: "        Some(field) => Err(FlowError::IdempotencyKeyReused { field }),",
        becomes: "        Some(_) => Ok(()),",
        tests: &["-p", "quittance-tests", "s27"],
    },
    Mutation {
        breaks: "I7",
        defect: "entries are not chained",
        file: "crates/domain/src/decide/step.rs",
        text: "        self.payment.last_leaf_hash = Some(entry.leaf_hash);\n",
        becomes: "",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I7",
        defect: "a version is skipped",
        file: "crates/domain/src/decide/step.rs",
        text: "        self.payment.version += 1;",
        becomes: "        self.payment.version += 2;",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I8",
        defect: "the application may change journal entries",
        file: "migrations/2026-11-23-000004_create_journal/up.sql",
        text: "grant select, insert on journal, journal_positions to quittance_app;",
        becomes: "grant select, insert, update on journal, journal_positions to quittance_app;",
        tests: STORE,
    },
    Mutation {
        breaks: "I9",
        defect: "another amount than was asked is called success",
        file: "crates/domain/src/decide/fact.rs",
        text: "        amount.minor_units() == transaction.amount && amount.currency()",
        becomes: "        amount.minor_units() > 0 && amount.currency()",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I9",
        defect: "an item of Adyen's that nobody signed is believed",
        file: "crates/providers/src/adyen/webhook.rs",
        text: "        if !self.keys.match_any(&fields, signature) {",
        becomes: "        if signature.is_empty() {",
        tests: ADAPTERS,
    },
    Mutation {
        breaks: "I9",
        defect: "a separator in a field of Adyen's shifts the others",
        file: "crates/providers/src/adyen/signature.rs",
        text: "        !self.0.iter().any(|field| field.contains(SEPARATOR))",
        becomes: "        !self.0.is_empty()",
        tests: ADAPTERS,
    },
    Mutation {
        breaks: "I10",
        defect: "a sensitive value is shown by Debug",
        file: "crates/domain/src/text.rs",
        text: "impl<T> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(\"<sensitive>\")",
        becomes: "impl<T: fmt::Debug> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, \"{:?}\", self.0)",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I11",
        defect: "a payment is read whoever asks",
        file: "crates/store/src/payments.rs",
        text: "        .filter(payments::tenant_id.eq(tenant))
        .select((PaymentRow",
        becomes: "        .filter(payments::tenant_id.eq(tenant).or(payments::version.gt(0)))
        .select((PaymentRow",
        tests: STORE,
    },
    Mutation {
        breaks: "I12",
        defect: "a transaction is sent without end",
        file: ATTEMPT,
        text: "!leased && !voiding && !late && !spent",
        becomes: "!leased && !voiding && !late && (!spent || spent)",
        tests: &["-p", "quittance-domain", "i12"],
    },
    Mutation {
        breaks: "I13",
        defect: "an unknown commit is answered as never accepted",
        file: "crates/domain/src/flows/mod.rs",
        text: "        StoreError::CommitUnknown => FlowError::AcceptanceUnknown,",
        becomes: "        StoreError::CommitUnknown => FlowError::ConcurrentChange,",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "a send begins that outlives its lease",
        file: SEND,
        text: "            leased && (!is_first(row)",
        becomes: "            (leased || !leased) && (!is_first(row)",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "connections that are refused use the sends up",
        file: ATTEMPT,
        text: "    let spent = spent && !held.certainly_unprocessed();",
        becomes: "    let spent = spent || held.attempts >= stamp.retries.max_sends.purchase;",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "a payment is abandoned before its customer's time is over",
        file: "crates/domain/src/decide/abandon.rs",
        text: "    if !late || tried",
        becomes: "    if tried",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "the void that waited for an authorization is forgotten after a crash",
        file: "crates/domain/src/decide/done.rs",
        text: "            void.next_step_at = Some(stamp.now + WAITING_VOID_SENT_WITHIN);",
        becomes: "            let _ = stamp.now + WAITING_VOID_SENT_WITHIN;",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "a step without news is never followed by another",
        file: RECOVER,
        text: "            self.commit(&change).await.map_err(accept_error)?;",
        becomes: "            let _ = &change;",
        tests: FLOWS,
    },
    Mutation {
        breaks: "notified",
        defect: "a notification is signed without its time",
        file: "crates/providers/src/webhook/standard.rs",
        text: "            mac.update(format!(\"{id}.{timestamp}.\").as_bytes());",
        becomes: "            let _ = timestamp;\n            mac.update(format!(\"{id}.\").as_bytes());",
        tests: ADAPTERS,
    },
    Mutation {
        breaks: "notified",
        defect: "an event overtakes an earlier one of its payment",
        file: OUTBOX,
        text: "and e.entity_seq < d.entity_seq and e.state = 'PENDING') \\",
        becomes: "and e.entity_seq < d.entity_seq and e.state = 'DEAD') \\",
        tests: &["-p", "quittance-store", "--test", "outbox"],
    },
    Mutation {
        breaks: "notified",
        defect: "an event is passed over where notifications are made in parts",
        file: OUTBOX,
        text: "        join journal_positions p on p.position >= r.low and p.position < r.high \\",
        becomes: "        join journal_positions p on p.position > r.low and p.position < r.high \\",
        tests: &["-p", "quittance-store", "--test", "outbox"],
    },
    Mutation {
        breaks: "I12",
        defect: "endpoints that are made at once exceed their limit",
        file: "crates/store/src/endpoints.rs",
        text: "                lock.execute(connection).await?;",
        becomes: "                drop(lock);",
        tests: &["-p", "quittance-store", "--test", "outbox"],
    },
];
