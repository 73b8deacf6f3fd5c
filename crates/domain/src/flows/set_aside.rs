//! What a provider tells by itself and what is not to be applied, or not yet.

use std::time::Duration;

use crate::change::Change;
use crate::context::Caller;
use crate::decide::{self, Meant, Unasked};
use crate::error::FlowError;
use crate::ids::{PaymentId, ProviderAccount};
use crate::journal::Stamp;
use crate::payment::PaymentRecord;
use crate::ports::Commit;
use crate::transaction::{Fact, FactKind, Transaction};

use super::webhook::Told;
use super::{Flows, accept_error};

/// Whether what a former account says is on record.
enum Noted {
    /// It is, or there is nothing to record.
    Done,
    /// Someone else moved the payment: decide again.
    Overtaken,
}

/// Whether a fact was dealt with without being applied.
pub(super) enum Aside {
    /// It is to be applied.
    No,
    /// This became of it.
    Told(Told),
    /// Someone else moved the payment: decide again.
    Overtaken,
}

impl Flows {
    /// Deals with what is not to be applied to the transaction (yet): a former account's word, what is about another
    /// payment, or of a second execution of ours, what takes back what is not known to be done, and what waits to be sent again.
    pub(super) async fn set_aside(
        &self,
        record: &PaymentRecord,
        held: &Transaction,
        account: &ProviderAccount,
        fact: &Fact,
        stamp: &Stamp<'_>,
    ) -> Result<Aside, FlowError> {
        if held.provider_account != *account {
            return self.moved_on(record, held, account, fact, stamp).await;
        }
        match decide::payment_meant(record, Some(held), fact, self.named_once(account)) {
            Meant::Ours => {}
            Meant::Another => {
                let change = decide::told_of_another(record, held.id, (held.kind, fact), stamp)?;
                return self.noted_of_another(change).await;
            }
            Meant::NotYetOurs => return Ok(Aside::Told(Told::Early)),
        }
        if decide::done_by_another_name(held, fact) {
            let change = decide::told_by_another_name(record, held, fact, stamp)?;
            return self.noted_of_another(change).await;
        }
        if decide::taken_back_early(held, fact) {
            return Ok(Aside::Told(Told::Early));
        }
        if matches!(fact.kind, FactKind::RequiresAction(_))
            && self.confirmation_unsent(record, held).await?
        {
            // The customer has done it; that is about to be sent again.
            return Ok(Aside::Told(Told::NoNews));
        }
        Ok(Aside::No)
    }

    /// The same of what is told of an operation by its own reference: `opening` is what opened the payment.
    pub(super) async fn not_ours(
        &self,
        record: &PaymentRecord,
        opening: &Transaction,
        told: &Unasked<'_>,
        fact: &Fact,
        stamp: &Stamp<'_>,
    ) -> Result<Aside, FlowError> {
        if opening.provider_account != *told.account {
            return self
                .moved_on(record, opening, told.account, fact, stamp)
                .await;
        }
        match decide::payment_meant(record, None, fact, self.named_once(told.account)) {
            Meant::Ours => Ok(Aside::No),
            Meant::Another => {
                let change = decide::told_of_another(record, opening.id, (told.kind, fact), stamp)?;
                self.noted_of_another(change).await
            }
            Meant::NotYetOurs => Ok(Aside::Told(Told::Early)),
        }
    }

    /// Whether the account names a payment once and for all: only one that can be asked does. Of others the name is known
    /// when the payment is decided.
    fn named_once(&self, account: &ProviderAccount) -> bool {
        let provider = self.ports().providers.account(account);
        provider.is_some_and(|provider| provider.capabilities().current_lookup)
    }

    /// Puts on record what an account says that the payment has left.
    async fn moved_on(
        &self,
        record: &PaymentRecord,
        held: &Transaction,
        account: &ProviderAccount,
        fact: &Fact,
        stamp: &Stamp<'_>,
    ) -> Result<Aside, FlowError> {
        let change = decide::told_by_former_account(record, held.id, account, fact, stamp)?;
        Ok(match self.noted(change).await? {
            Noted::Done => Aside::Told(Told::MovedOn),
            Noted::Overtaken => Aside::Overtaken,
        })
    }

    /// Puts on record what was told of another payment with our names.
    async fn noted_of_another(&self, change: Option<Change>) -> Result<Aside, FlowError> {
        let told = change.as_ref().map_or(Told::NoNews, |_| Told::Applied);
        Ok(match self.noted(change).await? {
            Noted::Done => Aside::Told(told),
            Noted::Overtaken => Aside::Overtaken,
        })
    }

    /// Puts on record what was done about a payment's money by somebody else, where the provider does not say what.
    pub(super) async fn told_unclearly(
        &self,
        caller: &Caller,
        account: &ProviderAccount,
        payment: PaymentId,
        (event, fact): (&str, &Fact),
    ) -> Result<Told, FlowError> {
        for _ in 0..=self.settings().max_decisions {
            let record = self.read(caller, payment).await?;
            let trace = self.ports().observer.current_trace();
            let stamp = self.stamp(caller, trace, Duration::ZERO);
            let change = decide::told_unclearly(&record, (account, event), fact, &stamp)?;
            match self.noted_of_another(change).await? {
                Aside::Told(told) => return Ok(told),
                Aside::No | Aside::Overtaken => {}
            }
        }
        Err(FlowError::ConcurrentChange)
    }

    /// Puts on record what perhaps moved money twice: what a former account says, where the transaction was proved not
    /// sent, or what is told of another payment, or operation, with our names.
    async fn noted(&self, change: Option<Change>) -> Result<Noted, FlowError> {
        let Some(change) = change else {
            return Ok(Noted::Done);
        };
        match self.commit(&change).await {
            Ok(Commit::Committed) => Ok(Noted::Done),
            Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => Ok(Noted::Overtaken),
            Err(error) => Err(accept_error(error)),
        }
    }
}
