//! Applying what a provider told by itself.

use std::time::Duration;

use quittance_evidence::Leaf;

use crate::context::{Actor, ActorKind, Caller, Origin};
use crate::decide::{self, Reported, Unasked};
use crate::error::FlowError;
use crate::ids::{PaymentId, ProviderAccount, TenantId, TransactionId, WebhookId};
use crate::payment::PaymentRecord;
use crate::ports::{Commit, EntryFilter, Named, SentThrough, StoredEntry};
use crate::transaction::{Dispute, Fact, FactKind, Transaction, TransactionKind, TransactionState};
use crate::unconfirmed::Unconfirmed;
use crate::webhook::{PaymentName, Subject, WebhookFact};

use super::ask::Confirmed;
use super::set_aside::Aside;
use super::{Flows, accept_error, read_error};

/// How journal entries name webhooks.
const WEBHOOK: &str = "webhook";
/// Entries of a payment read at once, to find those of one webhook.
const ENTRIES_AT_ONCE: usize = 100;

/// A webhook that is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hearing {
    /// Which.
    pub webhook: WebhookId,
    /// Whether it was begun before: whoever did may have applied it, and not have asked on.
    pub again: bool,
}

/// What became of a fact that a webhook told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It changed the payment.
    Applied,
    /// It is known already, or older than what is known.
    NoNews,
    /// No such payment is known (yet).
    UnknownPayment,
    /// It is about a payment that somebody else made through the same account.
    NotOurs,
    /// No attempt sent that transaction through this account (I9).
    OtherAccount,
    /// The transaction went to another account after it was proved not sent through this one.
    MovedOn,
    /// It contradicts an outcome that is known, and asking the provider did not confirm it.
    NotConfirmed(Unconfirmed),
    /// It rests on what is not decided yet, or may be what we asked for and have no answer to.
    Early,
    /// It is about an operation that it does not name.
    Nameless,
}

impl Flows {
    /// Applies a fact of a verified webhook: only to a transaction that an attempt sent through that very account
    /// (I9), and by the same decision as any answer.
    ///
    /// Events come in any order, and a provider's times are too coarse to tell it. An equal or older fact of a
    /// transaction without an outcome changes nothing; one that contradicts an outcome is first confirmed by
    /// asking the provider, where it can be asked, and what it says then is applied.
    pub async fn provider_told(
        &self,
        account: &ProviderAccount,
        hearing: Hearing,
        told: &WebhookFact,
    ) -> Result<Told, FlowError> {
        let payment = match self.payment_named(account, &told.payment).await? {
            Ok(payment) => payment,
            Err(unknown) => return Ok(unknown),
        };
        let named = match &told.subject {
            Subject::Transaction(transaction) => Some(*transaction),
            Subject::Operation { .. } | Subject::Unclear { .. } => None,
            // To be asked for first.
            Subject::Unnamed { .. } => return Ok(Told::Nameless),
        };
        let sent = self.ports().store.sent_through(payment, named, account);
        let tenant = match sent.await.map_err(read_error)? {
            SentThrough::Yes(tenant) => tenant,
            SentThrough::No => return Ok(Told::OtherAccount),
            SentThrough::UnknownPayment => return Ok(Told::UnknownPayment),
        };
        let caller = inbox(&tenant, hearing.webhook);
        let became = match &told.subject {
            Subject::Transaction(transaction) => {
                let about = (payment, *transaction);
                let told = (&told.fact, None);
                self.told_about(&caller, account, about, (told, false))
                    .await
            }
            Subject::Operation { kind, dispute } => {
                let provider = self.ports().providers.account(account);
                let several =
                    provider.is_none_or(|provider| provider.capabilities().several_captures);
                let operation = Unasked {
                    kind: *kind,
                    dispute: dispute.as_ref(),
                    account,
                    captures_once: !several,
                };
                let told = (&told.fact, hearing.again);
                self.told_of(&caller, payment, &operation, told).await
            }
            Subject::Unclear { event } => {
                let told = (event.as_str(), &told.fact);
                self.told_unclearly(&caller, account, payment, told).await
            }
            Subject::Unnamed { .. } => Ok(Told::Nameless),
        };
        let known = hearing.again && matches!(became, Ok(Told::NoNews));
        if known && self.has_changed(&tenant, payment, hearing.webhook).await? {
            return Ok(Told::Applied);
        }
        became
    }

    /// Whether a webhook changed the payment when it was taken up before: whoever did that died, or had no answer to what it
    /// asked the provider afterwards.
    async fn has_changed(
        &self,
        tenant: &TenantId,
        payment: PaymentId,
        webhook: WebhookId,
    ) -> Result<bool, FlowError> {
        let filter = EntryFilter {
            payment: Some(payment),
            source: Some(WEBHOOK.to_owned()),
            ..EntryFilter::default()
        };
        let (store, named) = (&self.ports().store, webhook.to_string());
        let by_it = |entry: &StoredEntry| {
            let leaf = Leaf::decode(&entry.leaf);
            leaf.is_ok_and(|leaf| leaf.request_id.as_ref() == Some(&named))
        };
        let mut after = None;
        loop {
            let entries = store.list_entries(Some(tenant), &filter, after, ENTRIES_AT_ONCE);
            let entries = entries.await.map_err(read_error)?;
            if entries.iter().any(by_it) {
                return Ok(true);
            }
            let Some(last) = entries.last() else {
                return Ok(false);
            };
            after = Some(last.id);
        }
    }

    /// What a webhook tells about this payment, each operation by its name: where it says only that there is one of a
    /// kind, the provider is asked for all of them. Those that are known already change nothing.
    ///
    /// # Errors
    /// Why the provider could not tell.
    pub async fn operations_told(
        &self,
        account: &ProviderAccount,
        payment: PaymentId,
        told: &WebhookFact,
    ) -> Result<Vec<WebhookFact>, Unconfirmed> {
        let Subject::Unnamed { kind } = told.subject else {
            return Ok(vec![told.clone()]);
        };
        let provider = self.ports().providers.account(account);
        let Some((provider, reference)) = provider.zip(told.fact.payment_reference.as_ref()) else {
            return Ok(Vec::new());
        };
        let asked = provider.operations(kind, reference).await;
        let mut facts = asked.map_err(|why| self.bounded(why))?;
        for fact in &mut facts {
            fact.payment = PaymentName::Ours(payment);
        }
        Ok(facts)
    }

    /// Applies what was told of an operation that the provider names by its own reference: to the transaction that
    /// has it, or as a new one. Two servers that hear of the same one at once are kept apart by the payment's version.
    async fn told_of(
        &self,
        caller: &Caller,
        payment: PaymentId,
        operation: &Unasked<'_>,
        (fact, again): (&Fact, bool),
    ) -> Result<Told, FlowError> {
        let account = operation.account;
        let returns = operation.kind == TransactionKind::ChargebackReversal;
        let (mut fact, mut asked_about) = (fact.clone(), None);
        for _ in 0..=self.settings().max_decisions {
            let record = self.read(caller, payment).await?;
            let version = record.payment.version;
            let Some(opening) = record.opening() else {
                return Ok(Told::OtherAccount);
            };
            let trace = self.ports().observer.current_trace();
            let stamp = self.stamp(caller, trace, Duration::ZERO);
            match self
                .not_ours(&record, opening, operation, &fact, &stamp)
                .await?
            {
                Aside::No => {}
                Aside::Told(told) => return Ok(told),
                Aside::Overtaken => continue,
            }
            match decide::reported(&record, operation.kind, &fact) {
                Reported::Known(id) => {
                    let told = ((&fact, operation.dispute), again && returns);
                    return self.told_about(caller, account, (payment, id), told).await;
                }
                Reported::Early => return Ok(Told::Early),
                Reported::Nameless => return Ok(Told::Nameless),
                Reported::Unknown => {}
            }
            let Some(change) = decide::unasked(&record, operation, &fact, &stamp)? else {
                return Ok(Told::NoNews);
            };
            if returns && asked_about != Some(version) {
                // It may have been won before it was lost, which leaves nothing here that this would contradict.
                asked_about = Some(version);
                match self.ask_about_new(record, &change).await? {
                    Confirmed::Told => {}
                    Confirmed::Instead(current) => {
                        fact = *current;
                        continue;
                    }
                    Confirmed::Not(why) => return Ok(Told::NotConfirmed(why)),
                }
            }
            match self.commit(&change).await {
                Ok(Commit::Committed) => {
                    let Some(new) = change.subject().filter(|_| asked_about.is_some()) else {
                        return Ok(Told::Applied);
                    };
                    let (about, so_far) = ((payment, new), (operation.dispute, Told::Applied));
                    return Box::pin(self.ask_on(caller, account, about, so_far)).await;
                }
                Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => {}
                Err(error) => return Err(accept_error(error)),
            }
        }
        Err(FlowError::ConcurrentChange)
    }

    /// Applies what was told about a transaction that was sent through the account; `open` where it may have been applied
    /// before, and how it stands now not have been asked.
    async fn told_about(
        &self,
        caller: &Caller,
        account: &ProviderAccount,
        about: (PaymentId, TransactionId),
        (told, open): ((&Fact, Option<&Dispute>), bool),
    ) -> Result<Told, FlowError> {
        let (became, asked) = self.tell(caller, account, about, told).await?;
        if asked && became == Told::Applied || open && became == Told::NoNews {
            // Seldom: not part of every future.
            return Box::pin(self.ask_on(caller, account, about, (told.1, became))).await;
        }
        Ok(became)
    }

    /// The same, without asking on; and whether the provider was asked.
    pub(super) async fn tell(
        &self,
        caller: &Caller,
        account: &ProviderAccount,
        (payment, transaction): (PaymentId, TransactionId),
        (fact, dispute): (&Fact, Option<&Dispute>),
    ) -> Result<(Told, bool), FlowError> {
        let (mut fact, mut dispute) = (fact.clone(), dispute.cloned());
        // The version of the payment that the provider was asked about: what it said may be older than a later one.
        let mut asked_about = None;
        for _ in 0..=self.settings().max_decisions {
            let asked = asked_about.is_some();
            let record = self.read(caller, payment).await?;
            let Some(held) = record.transaction(transaction) else {
                return Ok((Told::OtherAccount, asked));
            };
            let trace = self.ports().observer.current_trace();
            let stamp = self.stamp(caller, trace, Duration::ZERO);
            match self
                .set_aside(&record, held, account, &fact, &stamp)
                .await?
            {
                Aside::No => {}
                Aside::Told(told) => return Ok((told, asked)),
                Aside::Overtaken => continue,
            }
            let told = (&fact, dispute.as_ref());
            let Some(change) = decide::fact_about(&record, transaction, told, &stamp)? else {
                return Ok((Told::NoNews, asked));
            };
            let version = record.payment.version;
            if !asked && decide::end_unsaid(&record, held, &fact) {
                asked_about = Some(version);
                let until = self.said_until(&record, held).await?;
                fact = until.unwrap_or(fact);
                continue;
            }
            let older = decide::tells_details(held, &fact, dispute.as_ref());
            if (older || contradicts(&record, held, &fact)) && asked_about != Some(version) {
                match self
                    .make_current(&record, held, (&mut fact, &mut dispute))
                    .await?
                {
                    Ok(()) => asked_about = Some(version),
                    Err(why) => return Ok((Told::NotConfirmed(why), true)),
                }
                continue;
            }
            match self.commit(&change).await {
                Ok(Commit::Committed) => {
                    let record = change.apply_to(Some(record));
                    self.go_on_after(caller, record, transaction).await;
                    return Ok((Told::Applied, asked));
                }
                Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => {}
                Err(error) => return Err(accept_error(error)),
            }
        }
        Err(FlowError::ConcurrentChange)
    }

    /// An authorization that was made, with the time until which it holds, where the provider can say that. A webhook that
    /// leaves it out is applied all the same: it is not waited for.
    async fn said_until(
        &self,
        record: &PaymentRecord,
        held: &Transaction,
    ) -> Result<Option<Fact>, FlowError> {
        Ok(match self.ask_again(record, held).await? {
            Confirmed::Instead(current) if current.says_until() => Some(*current),
            Confirmed::Instead(_) | Confirmed::Told | Confirmed::Not(_) => None,
        })
    }

    /// The payment that a webhook names, or what becomes of a webhook whose payment is not known. Where it gives only a
    /// reference of the provider's, the provider is asked; where it names another event, what was stored of that.
    ///
    /// # Errors
    /// The database could not be asked.
    pub async fn payment_named(
        &self,
        account: &ProviderAccount,
        name: &PaymentName,
    ) -> Result<Result<PaymentId, Told>, FlowError> {
        let named = match (name, self.ports().providers.account(account)) {
            (PaymentName::Ours(payment), _) => Ok(Named::Ours(*payment)),
            (PaymentName::Theirs(reference), Some(provider)) => {
                provider.payment_named(reference).await
            }
            (PaymentName::Theirs(_), None) => Ok(Named::NotFound),
            (PaymentName::OfEvent(event), _) => {
                let found = self.ports().store.payment_of_event(account, event).await;
                Ok(found.map_err(read_error)?)
            }
        };
        Ok(match named {
            Ok(Named::Ours(payment)) => Ok(payment),
            Ok(Named::NotOurs) => Err(Told::NotOurs),
            Ok(Named::NotFound) => Err(Told::UnknownPayment),
            Err(why) => Err(Told::NotConfirmed(self.bounded(why))),
        })
    }

    /// Sends the void that waited for what was told. The fact is applied already, so its failure is recovery's.
    async fn go_on_after(&self, caller: &Caller, mut record: PaymentRecord, told: TransactionId) {
        let payment = record.payment.id;
        let moved = match self.start_waiting_void(caller, &mut record).await {
            Ok(Some(started)) => self.carry_on(caller, record, started).await.map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = moved {
            tracing::error!(
                payment.id = %payment,
                transaction.id = %told,
                error = %error,
                "a void was left to recovery"
            );
        }
    }
}

/// Whether a fact contradicts what is known, so that the provider is asked first.
fn contradicts(record: &PaymentRecord, held: &Transaction, fact: &Fact) -> bool {
    // What was asked of the customer before a confirmation may be told after it.
    let overtaken = matches!(fact.kind, FactKind::RequiresAction(_))
        && held.state == TransactionState::Pending
        && record.payment.next_action.is_some();
    overtaken || held.state.ended() && !decide::made_before_it_ran_out(record, held, fact)
}

/// Who applies webhooks. The fact itself is the provider's word, and its entry says so.
fn inbox(tenant: &TenantId, webhook: WebhookId) -> Caller {
    Caller {
        tenant: tenant.clone(),
        actor: Actor {
            kind: ActorKind::System,
            id: WEBHOOK.to_owned(),
            auth_method: "",
        },
        origin: Origin {
            rpc_method: WEBHOOK.to_owned(),
            request_id: webhook.to_string(),
            ..Origin::default()
        },
        remote: None,
        deadline: None,
    }
}
