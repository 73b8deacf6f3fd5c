//! `quittance audit keys` and `signer`: run where the service is configured.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{SubsecRound as _, Utc};
use clap::{Args, Subcommand};
use quittance_domain::flows::audit::AuditLog;
use quittance_domain::ports::Ports;
use quittance_evidence::note::{KeyName, VerifierKey};
use quittance_evidence::tree::empty_root;
use quittance_store::{PgStore, TreeHead, Unobserved};
use quittance_telemetry::Telemetry;
use tokio_util::task::TaskTracker;

use crate::adapters::{NoProviders, OsRandomness, SystemClock, TelemetryObserver, TrackedSpawn};
use crate::config::{DatabaseConfig, SecretsConfig, Settings, SigningConfig};
use crate::database;
use crate::operator;
use crate::output;
use crate::server::instance;
use crate::signing::{LOG_KEY_FILE, LogKeys, RECEIPT_KEY_FILE, StateDirectory, generate, new_key};
use crate::trail::Trail;

/// How long the connections may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What is done about the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditSiteCommand {
    /// Make and change the keys that sign the log.
    #[command(subcommand)]
    Keys(AuditKeysCommand),
    /// Look after the signer's state.
    #[command(subcommand)]
    Signer(SignerCommand),
}

/// What is done about keys.
#[derive(Debug, Subcommand)]
pub enum AuditKeysCommand {
    /// Make the keys of a new log: one that signs checkpoints, one that signs receipts. Prints what to publish.
    Generate(GenerateArgs),
    /// Make a further key of the log, which is to replace the one in use, and put that on record.
    Rotate {
        /// Where the new key is written; nothing must be there.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// A key of receipts rather than of checkpoints.
        #[arg(long)]
        receipts: bool,
    },
    /// Print what to publish of the configured keys: who has it can check everything that they signed.
    Show,
}

/// What new keys are for.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Where the key files are written; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// The log's name for good, a URL without its scheme, such as pay.example.com/quittance: no other log may have it.
    #[arg(long)]
    name: String,
}

/// What is done about the signer.
#[derive(Debug, Subcommand)]
pub enum SignerCommand {
    /// Make the signer's first state in audit.state_directory.
    Init {
        /// File with the newest checkpoint of this log that anybody has: for a log that was signed before, whose
        /// state is lost. Without it, the log must never have been signed.
        #[arg(long, value_name = "FILE")]
        from_checkpoint: Option<PathBuf>,
        /// Begin another log with the tree that there is, where entries of the one before that were signed are lost for
        /// good. The configured keys have its name, which no log that was signed in this database had.
        #[arg(long, conflicts_with = "from_checkpoint")]
        new_log: bool,
    },
}

/// Runs a command.
///
/// # Errors
/// What is wrong with the configuration, the files or the database.
pub async fn run(
    settings: &Settings,
    telemetry: &Telemetry,
    command: AuditSiteCommand,
) -> anyhow::Result<()> {
    match command {
        AuditSiteCommand::Keys(AuditKeysCommand::Generate(wanted)) => generate_keys(&wanted),
        AuditSiteCommand::Keys(AuditKeysCommand::Rotate { file, receipts }) => {
            rotate(settings, telemetry, file, receipts).await
        }
        AuditSiteCommand::Keys(AuditKeysCommand::Show) => show(settings),
        AuditSiteCommand::Signer(SignerCommand::Init { new_log: true, .. }) => {
            init_new_log(settings).await
        }
        AuditSiteCommand::Signer(SignerCommand::Init {
            from_checkpoint,
            new_log: false,
        }) => init(settings, from_checkpoint).await,
    }
}

fn signing(settings: &Settings) -> anyhow::Result<SigningConfig> {
    SigningConfig::parse(settings)?.context("audit.enabled = false: this log is not signed")
}

fn generate_keys(wanted: &GenerateArgs) -> anyhow::Result<()> {
    let name = KeyName::new(wanted.name.as_str()).context("--name")?;
    let [log, receipts] = generate(&wanted.directory, &name)?;
    let file = |name: &str| wanted.directory.join(name).display().to_string();
    output::line(format!(
        "Keep these files secret, and a copy of them safe:\n  {}\n  {}\n\nPublish these keys, where nobody who owns \
         the database can change them:\n  {log}\n  {receipts}\n\nSet audit.log_key_files, audit.receipt_key_file and \
         audit.state_directory; then run `quittance audit signer init`.",
        file(LOG_KEY_FILE),
        file(RECEIPT_KEY_FILE),
    ));
    Ok(())
}

fn show(settings: &Settings) -> anyhow::Result<()> {
    let keys = LogKeys::load(&signing(settings)?)?;
    for key in keys.verifiers() {
        output::line(key);
    }
    for receipts in keys.receipt_keys() {
        output::line(receipts.key);
    }
    Ok(())
}

async fn open(settings: &Settings) -> anyhow::Result<Arc<PgStore>> {
    let config = DatabaseConfig::parse(settings)?;
    let ring = database::key_ring(&SecretsConfig::parse(settings)?)?;
    Ok(database::connect(&config, ring, Arc::new(Unobserved)).await?)
}

/// Makes a key and puts it on record. One that cannot be put on record is removed: nobody has used it.
async fn rotate(
    settings: &Settings,
    telemetry: &Telemetry,
    file: PathBuf,
    receipts: bool,
) -> anyhow::Result<()> {
    let keys = LogKeys::load(&signing(settings)?)?;
    let (name, old) = if receipts {
        let published = keys.receipt_keys().into_iter().map(|one| one.key);
        (keys.receipts().name().clone(), published.collect())
    } else {
        let origin = keys.origin().context("there is no key to replace")?;
        (origin.clone(), keys.verifiers())
    };
    let store = open(settings).await?;
    let ports = Ports {
        store: store.clone(),
        providers: Arc::new(NoProviders),
        clock: Arc::new(SystemClock),
        // Writing entries starts no task.
        spawn: Arc::new(TrackedSpawn::new(TaskTracker::new(), 0)),
        random: Arc::new(OsRandomness::default()),
        observer: Arc::new(TelemetryObserver::new(telemetry.metrics())),
    };
    let instance = instance();
    let trail = Trail::new(AuditLog::new(ports, instance.clone()), instance);
    let made = new_key(&file, &name)?;
    let old: Vec<String> = old.iter().map(VerifierKey::to_string).collect();
    let recorded = trail
        .signing_key_made(&made.to_string(), &old.join(" "), &operator::current())
        .await;
    store.shutdown(CLOSE_LIMIT).await;
    if let Err(error) = recorded {
        let _ = fs::remove_file(&file);
        return Err(error).context("the key was not made: that could not be put on record");
    }
    let then = if receipts {
        "Then choose a time by which every server is started anew. Name the new file in audit.receipt_key_file, that \
         time in audit.receipt_key_from, and the old file in audit.older_receipt_keys (\"FILE until TIME\"), on every \
         server. Leave the old file there: it repeats the receipts that it signed."
    } else {
        "Then name both files in audit.log_key_files of every server, the new one first: every checkpoint is signed by \
         both. Once everybody has the new key, take the old file out."
    };
    output::line(format!(
        "The new key is in {}. Publish its other half beside the old one's:\n  {made}\n\n{then}",
        file.display()
    ));
    Ok(())
}

/// Makes the first state. A log that was signed before does not begin anew: that would unsay what was signed.
async fn init(settings: &Settings, from: Option<PathBuf>) -> anyhow::Result<()> {
    let config = signing(settings)?;
    let keys = LogKeys::load(&config)?;
    let given = from.as_ref().map(fs::read_to_string).transpose();
    let given = given.context("--from-checkpoint")?;
    if given.is_none() {
        let store = open(settings).await?;
        // Under whatever keys: those that are configured may be new.
        let largest = store.largest_checkpoint().await;
        store.shutdown(CLOSE_LIMIT).await;
        if let Some(largest) = largest? {
            bail!(
                "this log was signed before, {largest} entries of it: give the newest checkpoint that anybody has with \
                 --from-checkpoint. Where entries that were signed are lost for good, it has ended: begin another under a new \
                 name with --new-log"
            );
        }
    }
    let state = StateDirectory::new(&config.state_directory);
    goes_on_from(state.init(&keys, given.as_deref(), Utc::now())?);
    Ok(())
}

fn goes_on_from(head: TreeHead) {
    output::line(format!(
        "The signer goes on from a tree of {} entries with the root {}.",
        head.size, head.root
    ));
}

/// Begins another log. Of that before it nothing is unsaid: it has another name, and keys of its own.
async fn init_new_log(settings: &Settings) -> anyhow::Result<()> {
    let config = signing(settings)?;
    let keys = LogKeys::load(&config)?;
    let state = StateDirectory::new(&config.state_directory);
    let store = open(settings).await?;
    let begun = begin(&store, &keys, &state).await;
    store.shutdown(CLOSE_LIMIT).await;
    goes_on_from(begun?);
    Ok(())
}

/// Signs the tree that there is. The checkpoint is stored at once: a signer looks for its log's newest among the last ones that
/// are stored, which would all be those of the log before.
async fn begin(
    store: &PgStore,
    keys: &LogKeys,
    state: &StateDirectory,
) -> anyhow::Result<TreeHead> {
    let log = keys.origin().context("audit.log_key_files names no key")?;
    if store.has_checkpoint_of(log).await? {
        bail!(
            "{log} was signed before: another log has a name of its own. Make its keys with `quittance audit keys generate`"
        );
    }
    let head = store.tree_head().await?.unwrap_or(TreeHead {
        size: 0,
        root: empty_root(),
    });
    if head.size > 0 && store.tree_root(head.size).await? != head.root {
        bail!("the stored tree does not have the root of its head: nothing is signed");
    }
    // Else nobody missed the last checkpoints of the log before, which only later ones name.
    let before = match head.size {
        0 => None,
        size => store.last_checkpoint_below(size).await?,
    };
    let first = state.begin(keys, head, before, Utc::now().trunc_subsecs(6))?;
    if head.size > 0 {
        let kept = store.keep_checkpoint(&first).await;
        kept.context(
            "the first checkpoint could not be stored, so nobody has seen it: empty audit.state_directory, and run this \
             again",
        )?;
    }
    Ok(head)
}
