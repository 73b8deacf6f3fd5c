//! Asking a provider whether what it told holds now, before that is believed against what is known.

use crate::change::Change;
use crate::context::Caller;
use crate::decline::Cause;
use crate::error::FlowError;
use crate::ids::{PaymentId, ProviderAccount, TransactionId};
use crate::payment::PaymentRecord;
use crate::ports::LookupQuery;
use crate::transaction::{Dispute, Fact, LookupOutcome, Transaction};
use crate::unconfirmed::Unconfirmed;

use super::Flows;
use super::webhook::Told;

/// What asking the provider showed.
pub(super) enum Confirmed {
    /// It cannot be asked: its word has to do.
    Told,
    /// This holds now.
    Instead(Box<Fact>),
    /// It does not confirm it, or could not be asked just now.
    Not(Unconfirmed),
}

impl Flows {
    /// Asks the provider what holds now of an operation that is not recorded yet.
    pub(super) async fn ask_about_new(
        &self,
        record: PaymentRecord,
        change: &Change,
    ) -> Result<Confirmed, FlowError> {
        let record = change.apply_to(Some(record));
        let new = change.subject().and_then(|id| record.transaction(id));
        match new {
            Some(new) => self.ask_again(&record, new).await,
            None => Ok(Confirmed::Told),
        }
    }

    /// Asks the provider what holds now, unless it has asked to be left alone about that.
    pub(super) async fn ask_again(
        &self,
        record: &PaymentRecord,
        held: &Transaction,
    ) -> Result<Confirmed, FlowError> {
        let provider = self.provider_of(record, held.id)?;
        if !provider.capabilities().current_lookup {
            // It can be told by webhook alone.
            return Ok(Confirmed::Told);
        }
        let now = self.ports().clock.now();
        let alone = held.left_alone.until(&held.provider_account);
        let alone = alone.and_then(|until| (until - now).to_std().ok());
        if let Some(wait) = alone.filter(|wait| !wait.is_zero()) {
            return Ok(Confirmed::Not(Unconfirmed {
                cause: Cause::RateLimited,
                retry_after: Some(wait),
            }));
        }
        let query = LookupQuery::about(&record.payment, held);
        self.retried(record, held.id, "lookup");
        Ok(match provider.lookup(&query).await {
            LookupOutcome::Found(current) => Confirmed::Instead(Box::new(current)),
            LookupOutcome::NotFound {
                authoritative: true,
            } => Confirmed::Not(Cause::NotProcessed.into()),
            // Not to find it proves nothing, and what it told was signed.
            LookupOutcome::NotFound {
                authoritative: false,
            } => Confirmed::Told,
            LookupOutcome::Unavailable { cause, retry_after } => {
                Confirmed::Not(self.bounded(Unconfirmed { cause, retry_after }))
            }
        })
    }

    /// What a provider answered, with the wait that is honoured of the one that it asked for.
    pub(super) fn bounded(&self, why: Unconfirmed) -> Unconfirmed {
        why.at_most(self.settings().retries.max_retry_after)
    }

    /// Has a fact, and what it says a dispute is about, be what holds now, where the provider can be asked: of two events
    /// that tell different dates nothing says which is the older.
    ///
    /// # Errors
    /// Why it is not confirmed.
    pub(super) async fn make_current(
        &self,
        record: &PaymentRecord,
        held: &Transaction,
        (fact, dispute): (&mut Fact, &mut Option<Dispute>),
    ) -> Result<Result<(), Unconfirmed>, FlowError> {
        match self.ask_again(record, held).await? {
            Confirmed::Told => return Ok(Ok(())),
            Confirmed::Not(why) => return Ok(Err(why)),
            Confirmed::Instead(current) => *fact = *current,
        }
        if dispute.is_some() && *dispute != held.dispute {
            let provider = self.provider_of(record, held.id)?;
            let query = LookupQuery::about(&record.payment, held);
            match provider.dispute(&query).await {
                Ok(current) => *dispute = current.or(dispute.take()),
                Err(why) => return Ok(Err(self.bounded(why))),
            }
        }
        Ok(Ok(()))
    }

    /// Asks about a dispute once more, after an answer about it was applied (or may have been: `became`), until that is what
    /// holds. What became of what was told, all in all.
    ///
    /// It may have gone on while the answer was under way, and the event about that may have found nothing to change yet:
    /// nobody else would tell it. Whatever goes on after the last question is told to a payment that knows its answer. So
    /// where the last question has no answer, what was told is not done with.
    pub(super) async fn ask_on(
        &self,
        caller: &Caller,
        account: &ProviderAccount,
        about: (PaymentId, TransactionId),
        (dispute, mut became): (Option<&Dispute>, Told),
    ) -> Result<Told, FlowError> {
        for _ in 0..self.settings().max_decisions {
            let record = self.read(caller, about.0).await?;
            let held = record.transaction(about.1);
            let Some(held) = held.filter(|held| held.kind.disputes()) else {
                return Ok(became);
            };
            let current = match self.ask_again(&record, held).await? {
                Confirmed::Instead(current) => current,
                Confirmed::Told => return Ok(became),
                Confirmed::Not(why) => return Ok(Told::NotConfirmed(why)),
            };
            let current = (current.as_ref(), dispute);
            match self.tell(caller, account, about, current).await? {
                (Told::Applied, _) => became = Told::Applied,
                (Told::NoNews, _) => return Ok(became),
                (
                    open @ (Told::UnknownPayment
                    | Told::NotOurs
                    | Told::OtherAccount
                    | Told::MovedOn
                    | Told::NotConfirmed(_)
                    | Told::Early
                    | Told::Nameless),
                    _,
                ) => return Ok(open),
            }
        }
        Err(FlowError::ConcurrentChange)
    }
}
