//! Reconciles an account: reads what its provider settled, compares it with ours, and puts what was found on record.

mod record;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::context::Caller;
use crate::decline::Cause;
use crate::error::FlowError;
use crate::ids::{PaymentId, ProviderAccount};
use crate::ports::{Clock, Provider, Providers};
use crate::reconciliation::{
    self as reconciliation, Booked, BookedRange, Bookings, ExportError, ExportLine, Finding,
    FindingKind, MAX_RECORDED_FINDINGS, Settlement, SettlementReader, SettlementSource,
    TooManyLines, Verdict, Window, judge,
};

use super::audit::AuditLog;
use super::read_error;

/// Most of our transactions that are read at once.
const PAGE: usize = 10_000;
/// Most payments that are read at once.
const PAYMENTS: usize = 500;
/// Most pages that a provider is asked for: as many lines as an export may have, of which a page holds some.
const MAX_PAGES: usize = 100_000;

/// Why an account could not be reconciled. What was found until then was told, and is not on record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReconcileError {
    /// As any flow.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// The export cannot be read.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// It has too many lines for one run.
    #[error(transparent)]
    TooManyLines(#[from] TooManyLines),
    /// The account's provider has no export that can be read.
    #[error("the account's provider has no export that can be read")]
    NoSettlements,
    /// The provider could not be asked.
    #[error("the provider could not be asked: {0}")]
    Provider(Cause),
    /// The export does not say what time it is about, and the caller does not either.
    #[error("the export does not say from when to when it is: say it")]
    NoRange,
    /// The export did not come to its end.
    #[error("the export did not come to its end")]
    Interrupted,
    /// What was found is not taken.
    #[error("what was found is not read")]
    NotRead,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which account.
    pub account: ProviderAccount,
    /// From when on the export tells; by default from its first line.
    pub from: Option<DateTime<Utc>>,
    /// Until when; by default its last line.
    pub to: Option<DateTime<Utc>>,
    /// How near to an end of that our transactions are not called missing; by default as the provider's export needs it.
    pub margin: Option<TimeDelta>,
}

/// An export, as it comes.
#[async_trait]
pub trait Export: Send {
    /// The next part; `None` at its end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ReconcileError>;
}

/// Who is told what is found.
#[async_trait]
pub trait Listener: Send {
    /// One finding. An error ends the run: nobody takes what is found.
    async fn found(&mut self, finding: &Finding) -> Result<(), ReconcileError>;
}

/// What a run comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// SHA-256 of the export, byte by byte; of a provider that was asked, of its answers.
    pub digest: [u8; 32],
    /// The time that was compared.
    pub window: Window,
    /// The time of the last line; of an export without any the end of what was compared.
    pub opened_at: DateTime<Utc>,
    /// Lines that move a payment's money.
    pub lines: u64,
    /// Lines that do not: fees, payouts.
    pub passed: u64,
    /// Transactions that agree.
    pub agreed: u64,
    /// Transactions about which nothing can be said: near an end, or in another currency.
    pub not_judged: u64,
    /// Findings, by kind.
    pub findings: BTreeMap<FindingKind, u64>,
    /// Columns that are there and were not looked at.
    pub ignored_columns: Vec<String>,
    /// How many findings are on record.
    pub recorded: u64,
    /// Whether all of them were on record already: the same export was reconciled before, and came to the same.
    pub repeated: bool,
}

impl Reconciled {
    /// How many findings there are.
    pub fn total(&self) -> u64 {
        self.findings.values().sum()
    }
}

/// Reconciles accounts. Cheap to clone.
#[derive(Clone)]
pub struct Reconciler {
    bookings: Arc<dyn Bookings>,
    providers: Arc<dyn Providers>,
    clock: Arc<dyn Clock>,
    log: AuditLog,
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler").finish_non_exhaustive()
    }
}

/// One run.
struct Run<'a> {
    wanted: &'a Wanted,
    listener: &'a mut dyn Listener,
    settlement: Settlement,
    digest: Sha256,
    passed: u64,
    agreed: u64,
    not_judged: u64,
    counts: BTreeMap<FindingKind, u64>,
    /// Those that go on record.
    kept: Vec<Finding>,
}

impl Reconciler {
    /// Reconciles what these providers settled with these bookings; findings go into this log.
    pub fn new(
        bookings: Arc<dyn Bookings>,
        providers: Arc<dyn Providers>,
        clock: Arc<dyn Clock>,
        log: AuditLog,
    ) -> Self {
        Self {
            bookings,
            providers,
            clock,
            log,
        }
    }

    /// Whether the account can be reconciled, before anything is read.
    pub fn check(&self, account: &ProviderAccount) -> Result<(), ReconcileError> {
        self.account(account).map(drop)
    }

    fn account(
        &self,
        name: &ProviderAccount,
    ) -> Result<(Arc<dyn Provider>, SettlementSource), ReconcileError> {
        let provider = self.providers.account(name);
        let provider = provider.ok_or_else(|| FlowError::UnknownProviderAccount(name.clone()))?;
        let source = provider.settlements();
        Ok((provider, source.ok_or(ReconcileError::NoSettlements)?))
    }

    /// Reconciles an account. Who asks is on record before anything is read, and what was found when all is.
    pub async fn run(
        &self,
        caller: &Caller,
        wanted: &Wanted,
        export: &mut dyn Export,
        listener: &mut dyn Listener,
    ) -> Result<Reconciled, ReconcileError> {
        let (provider, mut source) = self.account(&wanted.account)?;
        record::started(&self.log, caller, wanted, source.asked).await?;
        let run = Run {
            wanted,
            listener,
            settlement: Settlement::default(),
            digest: Sha256::new(),
            passed: 0,
            agreed: 0,
            not_judged: 0,
            counts: BTreeMap::new(),
            kept: Vec::new(),
        };
        let ended = self.compare(run, provider, &mut source, export).await;
        let (mut reconciled, kept) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                record::failed(&self.log, caller, wanted, &error).await?;
                return Err(error);
            }
        };
        let run = record::Run {
            log: &self.log,
            bookings: &*self.bookings,
            caller,
            wanted,
        };
        run.findings(&mut reconciled, &kept).await?;
        run.finished(&reconciled).await?;
        Ok(reconciled)
    }

    async fn compare(
        &self,
        mut run: Run<'_>,
        provider: Arc<dyn Provider>,
        source: &mut SettlementSource,
        export: &mut dyn Export,
    ) -> Result<(Reconciled, Vec<Finding>), ReconcileError> {
        let asked_at = source.asked.then(|| self.clock.now());
        if source.asked {
            run.ask(&*provider, &mut *source.reader).await?;
        } else {
            run.read(&mut *source.reader, export).await?;
        }
        let window = run.window(source, asked_at)?;
        self.walk(&mut run, &window).await?;
        self.resolve(&mut run, &window).await?;
        let Run {
            settlement, kept, ..
        } = run;
        let last = settlement.times().map_or(window.to, |times| times.1);
        let reconciled = Reconciled {
            digest: run.digest.finalize().into(),
            window,
            opened_at: last,
            lines: settlement.lines(),
            passed: run.passed,
            agreed: run.agreed,
            not_judged: run.not_judged,
            findings: run.counts,
            ignored_columns: source.reader.ignored_columns(),
            recorded: 0,
            repeated: false,
        };
        Ok((reconciled, kept))
    }

    /// Compares each of ours about the time of the export.
    async fn walk(&self, run: &mut Run<'_>, window: &Window) -> Result<(), ReconcileError> {
        let (from, to) = window.reached();
        let mut range = BookedRange {
            account: run.wanted.account.clone(),
            from,
            to,
            after: None,
        };
        loop {
            let page = self.bookings.booked(&range, PAGE).await;
            let page = page.map_err(read_error)?;
            for ours in &page {
                run.judge(ours, window).await?;
            }
            let Some(last) = page.last().filter(|_| page.len() == PAGE) else {
                return Ok(());
            };
            range.after = Some((last.created_at, last.transaction));
        }
    }

    /// Lines that nothing of ours was found for: those that name a payment of ours are compared with it, however old it is;
    /// the rest is extra.
    async fn resolve(&self, run: &mut Run<'_>, window: &Window) -> Result<(), ReconcileError> {
        let named: HashSet<PaymentId> = run.settlement.unmatched();
        let mut named: Vec<_> = named.into_iter().collect();
        named.sort_unstable();
        for some in named.chunks(PAYMENTS) {
            let found = self.bookings.booked_of(&run.wanted.account, some).await;
            for ours in found.map_err(read_error)? {
                // What is within reach was compared already, with what the export says of it or without.
                if !window.reaches(ours.created_at) && run.settlement.of(&ours).is_some() {
                    run.judge(&ours, window).await?;
                }
            }
        }
        run.extras().await
    }
}

impl Run<'_> {
    async fn read(
        &mut self,
        reader: &mut dyn SettlementReader,
        export: &mut dyn Export,
    ) -> Result<(), ReconcileError> {
        while let Some(chunk) = export.next().await? {
            self.digest.update(&chunk);
            let lines = reader.read(&chunk)?;
            self.take(lines).await?;
        }
        let lines = reader.finish()?;
        self.take(lines).await
    }

    async fn ask(
        &mut self,
        provider: &dyn Provider,
        reader: &mut dyn SettlementReader,
    ) -> Result<(), ReconcileError> {
        let mut after = 0;
        for _ in 0..MAX_PAGES {
            let page = provider.settlement_page(after).await;
            let page = page.map_err(ReconcileError::Provider)?;
            self.digest.update(&page.bytes);
            let lines = reader.read(&page.bytes)?;
            self.take(lines).await?;
            match page.next {
                // A provider that does not get on would be asked for ever.
                Some(next) if next > after => after = next,
                Some(_) => return Err(ReconcileError::Provider(Cause::UnreadableResponse)),
                None => return Ok(()),
            }
        }
        Err(TooManyLines.into())
    }

    async fn take(&mut self, lines: Vec<ExportLine>) -> Result<(), ReconcileError> {
        for line in lines {
            match line {
                ExportLine::Settled(line) => self.settlement.add(line)?,
                ExportLine::Passed { at } => {
                    self.passed += 1;
                    if at.is_some() {
                        self.settlement.note_time(at);
                    }
                }
                ExportLine::Unknown { line, named } => {
                    self.found(reconciliation::unknown(line, named)).await?;
                }
            }
        }
        Ok(())
    }

    /// What time the export is about: as the caller says, else as its lines do. A provider that was asked told all that it
    /// had then.
    fn window(
        &self,
        source: &SettlementSource,
        asked_at: Option<DateTime<Utc>>,
    ) -> Result<Window, ReconcileError> {
        let times = self.settlement.times();
        let told = match asked_at {
            Some(now) => (Some(DateTime::UNIX_EPOCH), Some(now)),
            None => (times.map(|times| times.0), times.map(|times| times.1)),
        };
        let said = self.wanted.from.is_some() && self.wanted.to.is_some();
        Ok(Window {
            from: self.wanted.from.or(told.0).ok_or(ReconcileError::NoRange)?,
            to: self.wanted.to.or(told.1).ok_or(ReconcileError::NoRange)?,
            margin: self.wanted.margin.unwrap_or(source.margin),
            complete: said || source.complete,
        })
    }

    async fn judge(&mut self, ours: &Booked, window: &Window) -> Result<(), ReconcileError> {
        match judge(ours, self.settlement.of(ours), window) {
            Verdict::Agrees => self.agreed += 1,
            Verdict::NotJudged => self.not_judged += 1,
            Verdict::Found(finding) => self.found(*finding).await?,
        }
        Ok(())
    }

    async fn extras(&mut self) -> Result<(), ReconcileError> {
        let extras = self.settlement.take_unmatched().into_iter();
        for finding in extras.filter_map(|theirs| reconciliation::extra(&theirs)) {
            self.found(finding).await?;
        }
        Ok(())
    }

    async fn found(&mut self, finding: Finding) -> Result<(), ReconcileError> {
        *self.counts.entry(finding.kind).or_default() += 1;
        self.listener.found(&finding).await?;
        if self.kept.len() < MAX_RECORDED_FINDINGS {
            self.kept.push(finding);
        }
        Ok(())
    }
}
