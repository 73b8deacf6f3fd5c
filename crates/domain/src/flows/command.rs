//! The mutating commands: accept, then carry out.

use crate::change::{Change, CommandKind, CustomerData, PersonalField};
use crate::command::{Capture, Confirm, Create, Refund, Void};
use crate::context::Caller;
use crate::decide::{self, Ask, DecideError, NewPayment};
use crate::error::{FlowError, Rejection};
use crate::fingerprint::{Fields, Fingerprint, idempotency_key_digest};
use crate::ids::{IdempotencyKey, PaymentId, ProviderAccount};
use crate::journal::Stamp;
use crate::payment::PaymentRecord;
use crate::ports::{Commit, Place, Provider, ProviderRules, Saturated, StoreError};

use super::execute::{Progress, Report};
use super::{Answer, Flows, OVERLOAD_RETRY_AFTER, accept_error};

/// A command on a payment that exists: how it is decided.
type Decide<C> =
    fn(&PaymentRecord, &C, Ask, &dyn ProviderRules, &Stamp<'_>) -> Result<Change, DecideError>;

/// A request with its fingerprint.
pub(super) struct Request {
    pub ask: Ask,
    pub fields: Fields,
}

impl Flows {
    /// Takes a payment: accepts it, and asks its provider to authorize (and capture) it.
    pub async fn create(&self, caller: &Caller, command: Create) -> Result<Answer, FlowError> {
        let fields = command.fingerprint_fields();
        let request = self.request(
            caller,
            &command.idempotency_key,
            CommandKind::Create,
            fields,
        );
        self.run(caller, |flows, caller, report| async move {
            flows.create_now(&caller, command, request, &report).await
        })
        .await
    }

    /// Hands over what the customer's authentication returned.
    pub async fn confirm(&self, caller: &Caller, command: Confirm) -> Result<Answer, FlowError> {
        let fields = command.fingerprint_fields();
        let request = self.request(
            caller,
            &command.idempotency_key,
            CommandKind::Confirm,
            fields,
        );
        self.advance(caller, command.payment, command, request, decide::confirm)
            .await
    }

    /// Captures all or part of an authorization.
    pub async fn capture(&self, caller: &Caller, command: Capture) -> Result<Answer, FlowError> {
        let fields = command.fingerprint_fields();
        let request = self.request(
            caller,
            &command.idempotency_key,
            CommandKind::Capture,
            fields,
        );
        self.advance(caller, command.payment, command, request, decide::capture)
            .await
    }

    /// Releases an authorization, or what is left of it.
    pub async fn void(&self, caller: &Caller, command: Void) -> Result<Answer, FlowError> {
        let fields = command.fingerprint_fields();
        let request = self.request(caller, &command.idempotency_key, CommandKind::Void, fields);
        self.advance(caller, command.payment, command, request, decide::void)
            .await
    }

    /// Gives back all or part of what was captured.
    pub async fn refund(&self, caller: &Caller, command: Refund) -> Result<Answer, FlowError> {
        let fields = command.fingerprint_fields();
        let request = self.request(
            caller,
            &command.idempotency_key,
            CommandKind::Refund,
            fields,
        );
        self.advance(caller, command.payment, command, request, decide::refund)
            .await
    }

    fn request(
        &self,
        caller: &Caller,
        key: &IdempotencyKey,
        command: CommandKind,
        fields: Fields,
    ) -> Request {
        let secret = &self.settings().fingerprint_key;
        let tenant = caller.tenant.as_str();
        let fingerprint = Fingerprint::compute(secret, tenant, key.as_str(), &fields);
        let key_digest = idempotency_key_digest(secret, tenant, key.as_str());
        Request {
            ask: Ask {
                key: key.clone(),
                command,
                fingerprint,
                key_digest,
            },
            fields,
        }
    }

    /// The account that the caller named, or those that routing offers, best first.
    fn offered_accounts(
        &self,
        caller: &Caller,
        command: &Create,
    ) -> Result<Vec<ProviderAccount>, FlowError> {
        let providers = &self.ports().providers;
        match &command.provider_account {
            Some(named) if providers.serves(&caller.tenant, named) => Ok(vec![named.clone()]),
            Some(named) => Err(FlowError::UnknownProviderAccount(named.clone())),
            None => Ok(providers.route(&caller.tenant, command.amount, command.method.kind)),
        }
    }

    async fn create_now(
        &self,
        caller: &Caller,
        command: Create,
        request: Request,
        report: &Report,
    ) -> Result<Answer, FlowError> {
        let (change, place) = match self.accept_new(caller, &command, &request) {
            Ok(accepted) => accepted,
            // What cannot be accepted now (a route that is gone, a deadline that has passed) may have been
            // accepted before, under the same key.
            Err(error) => {
                let known = self.known_answer(caller, &request).await?;
                return known.ok_or(error);
            }
        };
        match self.commit(&change).await {
            Ok(Commit::Committed) => {
                let record = change.apply_to(None);
                self.finish(caller, record, (&change, place), report).await
            }
            Ok(Commit::IdempotencyKeyTaken | Commit::VersionConflict) => {
                // Nothing is sent: what only waits for another call's answer takes no place from a new payment.
                drop(place);
                self.replay(caller, &request).await
            }
            Err(error) => Err(accept_error(error)),
        }
    }

    fn accept_new(
        &self,
        caller: &Caller,
        command: &Create,
        request: &Request,
    ) -> Result<(Change, Place), FlowError> {
        // Accepted at the first account that can express the payment, be it away: there it waits. What an account cannot
        // take is no reason to refuse what another can.
        let mut refused = None;
        for account in self.offered_accounts(caller, command)? {
            match self.accept_at(account, caller, command, request) {
                Err(FlowError::Rejected(Rejection::Unpreparable(why))) => {
                    refused.get_or_insert(why);
                }
                accepted => return accepted,
            }
        }
        Err(match refused {
            Some(why) if command.provider_account.is_some() => Rejection::from(why).into(),
            Some(why) => FlowError::NoneCanServe(why),
            None => FlowError::NoRoute,
        })
    }

    fn accept_at(
        &self,
        account: ProviderAccount,
        caller: &Caller,
        command: &Create,
        request: &Request,
    ) -> Result<(Change, Place), FlowError> {
        let provider = self.provider(&account)?;
        let trace = self.ports().observer.current_trace();
        let stamp = self.stamp(caller, trace, provider.send_timeout());
        let new = NewPayment {
            id: PaymentId(self.ports().random.uuid_v7(stamp.now)),
            tenant: caller.tenant.clone(),
            account,
            livemode: provider.livemode(),
            customer: self.salted_customer(command),
        };
        let ask = request.ask.clone();
        let change = decide::create(command, ask, new, provider.as_ref(), &stamp)?;
        // Last: who cannot take the payment needs no place for it.
        let place = reserve(provider.as_ref())?;
        Ok((change, place))
    }

    fn salted_customer(&self, command: &Create) -> Option<CustomerData> {
        let customer = command.customer.as_ref()?;
        let salted = |(name, value): &(&'static str, _)| PersonalField {
            name,
            salt: self.ports().random.salt(),
            value: Clone::clone(value),
        };
        Some(CustomerData {
            reference: customer.reference.clone(),
            fields: customer.fields.iter().map(salted).collect(),
        })
    }

    /// Accepts a command on a payment that exists, and carries it out.
    async fn advance<C: Send + Sync + 'static>(
        &self,
        caller: &Caller,
        payment: PaymentId,
        command: C,
        request: Request,
        decide: Decide<C>,
    ) -> Result<Answer, FlowError> {
        self.run(caller, move |flows, caller, report| async move {
            flows
                .advance_now(&caller, payment, &command, &request, decide, &report)
                .await
        })
        .await
    }

    /// Reads, decides and commits until the payment holds still, a bounded number of times.
    async fn advance_now<C: Sync>(
        &self,
        caller: &Caller,
        payment: PaymentId,
        command: &C,
        request: &Request,
        decide: Decide<C>,
        report: &Report,
    ) -> Result<Answer, FlowError> {
        for _ in 0..=self.settings().max_decisions {
            // First the payment, then the key: a request that is not allowed because it was carried out
            // meanwhile then finds its own record. What was asked before is answered, whatever the
            // payment allows now.
            let found = self.read(caller, payment).await;
            if let Some(answer) = self.known_answer(caller, request).await? {
                return Ok(answer);
            }
            let record = found?;
            let provider = self.provider(&record.payment.provider_account)?;
            let place = reserve(provider.as_ref())?;
            let trace = self.ports().observer.current_trace();
            let stamp = self.stamp(caller, trace, provider.send_timeout());
            let ask = request.ask.clone();
            let change = decide(&record, command, ask, provider.as_ref(), &stamp)?;
            match self.commit(&change).await {
                Ok(Commit::Committed) => {
                    let record = change.apply_to(Some(record));
                    return self.finish(caller, record, (&change, place), report).await;
                }
                Ok(Commit::IdempotencyKeyTaken) => return self.replay(caller, request).await,
                Ok(Commit::VersionConflict) => {}
                Err(StoreError::Refused(constraint)) => {
                    tracing::error!(db.constraint = %constraint, "a decided change was refused");
                    return Err(accept_error(StoreError::Refused(constraint)));
                }
                Err(error) => return Err(accept_error(error)),
            }
        }
        // The last race may have been lost to this very request, made a second time.
        let known = self.known_answer(caller, request).await?;
        known.ok_or(FlowError::ConcurrentChange)
    }

    /// Reports acceptance, calls the provider, and answers with what came of it. Whatever goes wrong after
    /// acceptance, the answer is the payment as it stands: an accepted command is never an error (I13).
    async fn finish(
        &self,
        caller: &Caller,
        record: PaymentRecord,
        (change, place): (&Change, Place),
        report: &Report,
    ) -> Result<Answer, FlowError> {
        let Some(transaction) = change.subject() else {
            return Err(FlowError::Internal(
                "a command's change has no transaction".to_owned(),
            ));
        };
        let answer = |record| Answer {
            record,
            transaction,
            replayed: false,
        };
        // Nobody listens once the caller is gone.
        let _ = report.unbounded_send(Progress::Accepted(answer(record.clone())));
        match self.carry_out(caller, record.clone(), change, place).await {
            Ok(record) => Ok(answer(record)),
            Err(error) => {
                tracing::error!(
                    payment.id = %record.payment.id,
                    transaction.id = %transaction,
                    error = %error,
                    "an accepted command was left to recovery"
                );
                Ok(answer(record))
            }
        }
    }

    pub(super) fn provider(
        &self,
        account: &ProviderAccount,
    ) -> Result<std::sync::Arc<dyn Provider>, FlowError> {
        let found = self.ports().providers.account(account);
        found.ok_or_else(|| FlowError::UnknownProviderAccount(account.clone()))
    }
}

/// A place for the call that is about to be accepted; without one, nothing is written.
fn reserve(provider: &dyn Provider) -> Result<Place, FlowError> {
    provider
        .reserve()
        .map_err(|Saturated| FlowError::Overloaded {
            retry_after: OVERLOAD_RETRY_AFTER,
        })
}
