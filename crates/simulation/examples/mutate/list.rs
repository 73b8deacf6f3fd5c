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
const OUTBOX_TESTS: &[&str] = &["-p", "quittance-store", "--test", "outbox"];
const ADAPTERS: &[&str] = &["-p", "quittance-providers", "--lib"];

const ABANDON: &str = "crates/domain/src/decide/abandon.rs";
const ENDPOINTS: &str = "crates/store/src/endpoint_changes.rs";
const OUTBOX: &str = "crates/store/src/outbox.rs";
const COMMAND: &str = "crates/domain/src/flows/command.rs";
const LOOK_UP: &str = "crates/domain/src/flows/look_up.rs";
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
        request.bytes = crate::text::Sensitive::new(bytes);
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
        file: "crates/domain/src/decide/outcome.rs",
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
        breaks: "I5",
        defect: "a void that waited holds back more than is left",
        file: "crates/domain/src/decide/done.rs",
        text: "    let left = step.payment.amounts.capturable();",
        becomes: "    let left = step.subject.row().amount;",
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
        breaks: "I7",
        defect: "what an entry says of the amounts is not held to the entries before it",
        file: "crates/domain/src/verification/replay.rs",
        text: "            if derived != told {",
        becomes: "            if derived != told && derived < 0 {",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I7",
        defect: "what an entry says of the payment's state is not held to the entries before it",
        file: "crates/domain/src/verification/replay.rs",
        text: "        if self.state != said.state_to {",
        becomes: "        if self.state != said.state_to && said.leaf.makes.is_some() {",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I7",
        defect: "a change of an endpoint stays, though its entry could not be written",
        file: ENDPOINTS,
        text: "        Err(diesel::result::Error::RollbackTransaction)",
        becomes: "        Ok(())",
        tests: OUTBOX_TESTS,
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
        breaks: "I8",
        defect: "a head of the tree that somebody wrote into the database is believed",
        file: "crates/store/src/tree/heads.rs",
        text: "            Some(false) => Err(TreeDamage::HeadMac),",
        becomes: "            Some(false) => Ok(head),",
        tests: &["-p", "quittance-store", "--test", "tree"],
    },
    Mutation {
        breaks: "I8",
        defect: "an entry that somebody wrote into the database gets its position",
        file: "crates/store/src/sequencer/authentic.rs",
        text: "            return Ok(Err(Refusal::MacWrong));",
        becomes: "            let _ = self.mac;",
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
        breaks: "I9",
        defect: "a webhook changes what was sent through another account",
        file: "crates/store/src/inbox.rs",
        text: "        where a.payment_id = $1 and a.provider_account = $3 and",
        becomes: "        where a.payment_id = $1 and $3 <> '' and",
        tests: &["-p", "quittance-store", "--test", "inbox"],
    },
    Mutation {
        breaks: "I9",
        defect: "what was asked of the customer before a confirmation replaces it",
        file: "crates/domain/src/decide/fact.rs",
        text: "    if matches!(fact.kind, FactKind::RequiresAction(_)) && confirmation_open(record, held) {",
        becomes: "    if matches!(fact.kind, FactKind::Expired) && confirmation_open(record, held) {",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I10",
        defect: "a card number passes where it is written with separators",
        file: "crates/domain/src/card_number.rs",
        text: "fn separates(c: char) -> bool {",
        becomes: "fn separates(c: char) -> bool {\n    if c != '\\0' {\n        return false;\n    }",
        tests: FLOWS,
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
        breaks: "I11",
        defect: "notifications are listed whoever asks",
        file: "crates/store/src/outbox_lists.rs",
        text: "    where ($1 is null or tenant_id = $1) and",
        becomes: "    where ($1 is null or tenant_id <> '') and",
        tests: OUTBOX_TESTS,
    },
    Mutation {
        breaks: "I11",
        defect: "an endpoint is changed whoever asks",
        file: ENDPOINTS,
        text: "    where endpoint_id = $1 and tenant_id = $2 and state = 'ENABLED' and url = $3\";",
        becomes: "    where endpoint_id = $1 and $2 <> '' and state = 'ENABLED' and url = $3\";",
        tests: OUTBOX_TESTS,
    },
    Mutation {
        breaks: "I12",
        defect: "what the provider refuses to release is released again without end",
        file: "crates/domain/src/retry.rs",
        text: "        if refused >= release.steps || aged {",
        becomes: "        if aged {",
        tests: FLOWS,
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
        becomes: "        StoreError::CommitUnknown => FlowError::PaymentNotFound,",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "a send begins that outlives its lease",
        file: SEND,
        text: "        row.lease_until.is_some_and(|until| now + takes <= until)",
        becomes: "        let _ = now + takes;\n        row.lease_until.is_some()",
        tests: &["-p", "quittance-tests", "leases"],
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
        file: ABANDON,
        text: "        Some(NextStep::At(at)) => at <= stamp.now,",
        becomes: "        Some(NextStep::At(at)) => at <= stamp.now || at > stamp.now,",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "what the provider refused to release is forgotten",
        file: ABANDON,
        text: "    step.others.push(opening);",
        becomes: "    opening.next_step_at = None;\n    step.others.push(opening);",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "two servers take up one transaction at the same time",
        file: "crates/store/src/recovery.rs",
        text: "                    and (claimed_until is null or claimed_until <= now()) \\\n",
        becomes: "",
        tests: &["-p", "quittance-store", "--test", "recovery"],
    },
    Mutation {
        breaks: "exactly once",
        defect: "a commit that falls victim to a deadlock is given up",
        file: "crates/store/src/failure.rs",
        text: "            _ => Failure::Doubtful,",
        becomes: "            _ => Failure::Refused(\"statement\".to_owned()),",
        tests: &["-p", "quittance-store", "--test", "faults", "deadlock"],
    },
    Mutation {
        breaks: "exactly once",
        defect: "the void that waited for an authorization is forgotten after a crash",
        file: "crates/domain/src/decide/done.rs",
        text: "            void.take_up_at(stamp.now + WAITING_VOID_SENT_WITHIN);",
        becomes: "            let _ = stamp.now + WAITING_VOID_SENT_WITHIN;",
        tests: FLOWS,
    },
    Mutation {
        breaks: "the state is the provider's",
        defect: "an authorization that ran out without a webhook is never asked about",
        file: "crates/domain/src/decide/watch.rs",
        text: "        Some(until) if !said_before => Some(left_alone(
            &opening,
            stamp.retries.looked_at(until, stamp.jitter),
        )),",
        becomes: "        Some(_) if !said_before => None,",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "what a provider asked for that wants to be left alone is undone by news",
        file: "crates/domain/src/retry.rs",
        text: "        let alone = transaction.left_alone_until().filter(|until| *until > now);",
        becomes: "        let alone = transaction.left_alone_until().filter(|until| *until > now && transaction.retries > 0);",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "a failover goes back to an account that is to be left alone",
        file: "crates/domain/src/decide/attempt.rs",
        text: "    if !unsent || left_alone ||",
        becomes: "    if !unsent || left_alone && !unsent ||",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "a step without news is never followed by another",
        file: RECOVER,
        text: "            match self.commit(&change).await.map_err(accept_error)? {",
        becomes: "            match Commit::Committed {",
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
        tests: OUTBOX_TESTS,
    },
    Mutation {
        breaks: "notified",
        defect: "an event is passed over where notifications are made in parts",
        file: OUTBOX,
        text: "            where r.served and p.position >= r.low and p.position < r.high \\",
        becomes: "            where r.served and p.position > r.low and p.position < r.high \\",
        tests: OUTBOX_TESTS,
    },
    Mutation {
        breaks: "notified",
        defect: "a receiver that is gone from an old URL switches off the new one",
        file: ENDPOINTS,
        text: "                let Some(sealed) = there.filter(|(_, there)| *there == url) else {",
        becomes: "                let Some(sealed) = there.filter(|_| !url.expose().is_empty()) else {",
        tests: OUTBOX_TESTS,
    },
    Mutation {
        breaks: "I12",
        defect: "endpoints that are made at once exceed their limit",
        file: ENDPOINTS,
        text: "        lock.execute(connection).await?;",
        becomes: "        drop(lock);",
        tests: OUTBOX_TESTS,
    },
    Mutation {
        breaks: "I3",
        defect: "the clocks of two servers are taken for one",
        file: RESEND,
        text: "const CLOCKS_APART: Duration = Duration::from_secs(10);",
        becomes: "const CLOCKS_APART: Duration = Duration::from_secs(0);",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I3",
        defect: "a key is relied upon until the very end of the provider's memory",
        file: "crates/domain/src/retry.rs",
        text: "pub const KEY_AGE_MARGIN: Duration = Duration::from_secs(3_600);",
        becomes: "pub const KEY_AGE_MARGIN: Duration = Duration::from_secs(0);",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "a provider's Retry-After is not heeded",
        file: "crates/domain/src/retry.rs",
        text: "        let due = asked.map_or(drawn, |asked| asked.max(drawn));",
        becomes: "        let due = asked.map_or(drawn, |_| drawn);",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "what failed together comes back together",
        file: "crates/domain/src/retry.rs",
        text: "        Duration::from_micros(jitter % micros.saturating_add(1).max(1))",
        becomes: "        let _ = jitter;
        Duration::from_micros(micros)",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I3",
        defect: "a person decides while a request is under way",
        file: "crates/domain/src/decide/operator.rs",
        text: "    if all.any(|other| other.lease_until.is_some_and(|until| until > stamp.now)) {
        return Err(Rejection::BeingSent);",
        becomes: "    if all.any(|other| other.lease_until.is_some_and(|until| until > stamp.now) && other.amount < 0) {
        return Err(Rejection::BeingSent);",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I4",
        defect: "that an older send may have been processed is forgotten",
        file: "crates/domain/src/decide/outcome.rs",
        text: "            step.edit(|transaction| transaction.ever_unknown |= unknown);",
        becomes: "            let _ = unknown;",
        tests: FLOWS,
    },
    Mutation {
        breaks: "execute_before",
        defect: "what may never have left is sent after its time",
        file: LOOK_UP,
        text: "        Ok(!self.has_begun(record, of).await?)",
        becomes: "        Ok(!self.has_begun(record, of).await? && held.attempts == 1)",
        tests: FLOWS,
    },
    Mutation {
        breaks: "execute_before",
        defect: "a first send begins after its time, though its commit took until then",
        file: SEND,
        text: "        if !own_rules && self.ports().clock.now() >= row.execute_before {",
        becomes: "        if row.execute_before < row.created_at && !own_rules {",
        tests: FLOWS,
    },
    Mutation {
        breaks: "exactly once",
        defect: "a void that waited for a confirmation is forgotten",
        file: "crates/domain/src/decide/outcome.rs",
        text: "    take_up_waiting_void(step, record, stamp);\n",
        becomes: "    let _ = record;\n",
        tests: FLOWS,
    },
    Mutation {
        breaks: "I4",
        defect: "what the provider has named is sent again where a lookup misses it",
        file: RESEND,
        text: "    held.provider_reference.is_some() && !confirms\n",
        becomes: "    held.provider_reference.is_some() && !confirms && held.attempts == 0\n",
        tests: FLOWS,
    },
];
