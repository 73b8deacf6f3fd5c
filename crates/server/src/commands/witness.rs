//! `quittance witness`: runs a witness, a process of its own with a state of its own.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use quittance_evidence::note::{KeyName, KeyType, SEED_BYTES, SigningKey, VerifierKey, WitnessKey};
use rand::TryRngCore as _;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::output;
use crate::signals;
use crate::witness::{self, Witness, WitnessState, origins, router};

/// Where a witness listens unless told otherwise: this machine only.
const DEFAULT_LISTEN: &str = "127.0.0.1:7446";
/// The key is for its owner alone.
const SECRET_MODE: u32 = 0o600;
/// What group and others may do to a key file: nothing.
const OTHERS_MODE: u32 = 0o077;

const AFTER_HELP: &str = "\
A witness cosigns the checkpoints of the logs whose keys it is given, as long as each provably grew from the last one
that it cosigned. It is worth as much as it is independent: run it on another machine, best by somebody else, and keep its
directory: a witness that forgot what it saw must be retired with its key. The calls are those of C2SP tlog-witness,
over plain HTTP; where strangers can reach it, put a TLS proxy before it. docs/evidence.md says more.";

/// What is done with a witness.
#[derive(Debug, Subcommand)]
pub enum WitnessCommand {
    /// Make the key and the state of a witness, or begin to follow further logs. Prints the key to publish.
    #[command(after_help = AFTER_HELP)]
    Init(InitArgs),
    /// Cosign what is asked over HTTP, until SIGTERM or Ctrl-C.
    #[command(after_help = AFTER_HELP)]
    Serve(ServeArgs),
}

/// Where a witness keeps what it has, and which logs it follows.
#[derive(Debug, Args)]
pub struct Site {
    /// File with the witness's private key.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Directory of what was cosigned.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Verifier key of a log to follow; several may be given, also of one log.
    #[arg(long = "log-key", required = true, value_name = "KEY", value_parser = log_key)]
    log_keys: Vec<VerifierKey>,
}

/// How a witness begins.
#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(flatten)]
    site: Site,
    /// The witness's name, such as witness.example.com/w1, where it has no key yet.
    #[arg(long, value_name = "NAME")]
    name: Option<KeyName>,
}

/// How a witness runs.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    site: Site,
    /// Address to listen on.
    #[arg(long, default_value = DEFAULT_LISTEN, value_name = "ADDRESS")]
    listen: SocketAddr,
}

fn log_key(text: &str) -> Result<VerifierKey, String> {
    let key = text
        .parse::<VerifierKey>()
        .map_err(|error| error.to_string())?;
    match key.key_type() {
        KeyType::Ed25519 => Ok(key),
        KeyType::Cosignature => Err("this is the key of a witness, not of a log".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// What is wrong with the key, the state or the address.
pub async fn run(command: WitnessCommand) -> anyhow::Result<()> {
    match command {
        WitnessCommand::Init(wanted) => init(&wanted),
        WitnessCommand::Serve(wanted) => serve(&wanted).await,
    }
}

fn init(wanted: &InitArgs) -> anyhow::Result<()> {
    let site = &wanted.site;
    if !site.key_file.exists() {
        let name = wanted.name.clone();
        let name = name.context("--name is needed to make a key")?;
        make_key(&site.key_file, name)?;
    }
    let key = read_key(&site.key_file)?;
    let state = WitnessState::lock(&site.state)?;
    for origin in origins(&site.log_keys) {
        state.init(&origin)?;
        output::line(format!("Follows {origin} from its first entry."));
    }
    output::line(format!(
        "Verifier key, to be published:\n{}",
        key.verifier()
    ));
    Ok(())
}

fn make_key(path: &Path, name: KeyName) -> anyhow::Result<()> {
    let mut seed = Zeroizing::new([0_u8; SEED_BYTES]);
    rand::rngs::OsRng
        .try_fill_bytes(seed.as_mut_slice())
        .context("no random numbers from the operating system")?;
    let key = SigningKey::from_seed(name, &seed);
    let mut options = fs::OpenOptions::new();
    options.create_new(true).write(true).mode(SECRET_MODE);
    let cannot = || format!("cannot write {}", path.display());
    let mut file = options.open(path).with_context(cannot)?;
    file.write_all(key.to_secret_text().as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .with_context(cannot)
}

fn read_key(path: &Path) -> anyhow::Result<WitnessKey> {
    let cannot = || format!("cannot read {}", path.display());
    let mode = fs::metadata(path).with_context(cannot)?.mode();
    anyhow::ensure!(
        mode & OTHERS_MODE == 0,
        "{} can be read by others than its owner: chmod 600",
        path.display()
    );
    let text = Zeroizing::new(fs::read_to_string(path).with_context(cannot)?);
    let key = SigningKey::parse(&text).with_context(cannot)?;
    Ok(key.into())
}

async fn serve(wanted: &ServeArgs) -> anyhow::Result<()> {
    let site = &wanted.site;
    let witness = Witness::open(read_key(&site.key_file)?, &site.log_keys, &site.state)?;
    let stop = signals::stop()?;
    let listener = TcpListener::bind(wanted.listen)
        .await
        .with_context(|| format!("cannot listen on {}", wanted.listen))?;
    output::line(format!("Witness {}", witness.key().verifier()));
    for last in witness.last() {
        output::line(format!(
            "Follows {} from {} entries.",
            last.origin, last.size
        ));
    }
    output::line(format!("Listening on http://{}", listener.local_addr()?));
    witness::serve(listener, router(witness), stop).await;
    Ok(())
}
