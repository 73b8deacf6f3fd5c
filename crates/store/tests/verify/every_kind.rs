//! Each kind of tampering, at random places.

use std::io::Write as _;
use std::time::Duration;

use quittance_domain::verification::{Fault, Mismatch, TreeFault, Trusted};
use quittance_store::PgStore;
use tokio_postgres::Client;
use uuid::Uuid;

use super::tampering::{self, Kind, Reach};
use super::{grown, setting, signing, verify_at_rest};

/// Entries below one hash of a tile of level 2.
const LEVEL_2_ENTRIES: usize = 65_536;

/// Says that a kind of tampering was not tried, past the test harness, which shows nothing of a test that passes.
fn not_tried(kind: &Kind) {
    let line = format!(
        "\nNOT TRIED in so small a log: {} (QUITTANCE_TAMPER_ENTRIES=100000 does)\n",
        kind.name
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Most kinds that are tried at once.
const TOGETHER: usize = 16;

/// What was tampered with, and is yet to be found: several kinds of those that show nowhere but at their payments, or one
/// of the others.
#[derive(Default)]
struct Tried(Vec<(&'static Kind, Vec<tampering::Target>)>);

impl Tried {
    fn streams(&self) -> Vec<Uuid> {
        let targets = self.0.iter().flat_map(|(_, targets)| targets);
        targets.map(|target| target.stream).collect()
    }

    fn takes(&self, kind: &Kind) -> bool {
        let kinds = self.0.iter().map(|(kind, _)| *kind).chain([kind]);
        let mut together = kinds.map(|kind| kind.reach == Reach::Payment);
        self.0.is_empty() || self.0.len() < TOGETHER && together.all(|together| together)
    }

    /// Demands that all of it is found, and puts it back. Tells what was.
    async fn check(&mut self, store: &PgStore, client: &Client, trusted: &Trusted) -> String {
        let mut told = Vec::new();
        let (found, _) = verify_at_rest(store, trusted).await;
        let tried = std::mem::take(&mut self.0);
        for (kind, targets) in &tried {
            for target in targets {
                assert_detected(kind, target, &found);
            }
            let count = targets.len();
            told.push(format!("{:<45} {count} of {count} detected\n", kind.name));
        }
        let kinds: Vec<&Kind> = tried.iter().map(|(kind, _)| *kind).collect();
        let put_back = tampering::put_back_after(&kinds);
        client.batch_execute(&put_back).await.unwrap();
        told.concat()
    }
}

/// Each kind of tampering at random places, all of a kind at once; then everything is put back.
#[tokio::test(flavor = "multi_thread")]
async fn s75_whatever_is_tampered_with_is_detected_and_named() {
    let seed = std::env::var("QUITTANCE_TAMPER_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse::<u64>().unwrap());
    println!("QUITTANCE_TAMPER_SEED={seed}");
    let entries = setting("QUITTANCE_TAMPER_ENTRIES", 600);
    let (_db, store, client) = grown(entries).await;
    let each = setting("QUITTANCE_TAMPER_EACH", 3);
    let trusted = signing::sign_all(&store, &client).await;
    client.batch_execute(&tampering::setup(seed)).await.unwrap();
    // Nothing is sequenced that was tampered with while it lies there: the attacker stops the service first.
    store.shutdown(Duration::from_secs(10)).await;
    assert_eq!(verify_at_rest(&store, &trusted).await.0, []);
    let mut tried = Tried::default();
    for kind in tampering::chosen() {
        let others = tried.streams();
        let mut targets = tampering::pick(&client, kind, each, &others).await;
        if !tried.takes(kind) || targets.is_empty() && !others.is_empty() {
            print!("{}", tried.check(&store, &client, &trusted).await);
            targets = tampering::pick(&client, kind, each, &[]).await;
        }
        if targets.is_empty() && kind.large {
            assert!(
                entries < LEVEL_2_ENTRIES,
                "nothing to tamper with: {}",
                kind.name
            );
            not_tried(kind);
            continue;
        }
        assert!(!targets.is_empty(), "nothing to tamper with: {}", kind.name);
        for target in &targets {
            tampering::tamper(&client, kind, target).await;
        }
        tried.0.push((kind, targets));
    }
    print!("{}", tried.check(&store, &client, &trusted).await);
    assert_eq!(verify_at_rest(&store, &trusted).await.0, []);
}

fn assert_detected(kind: &Kind, target: &tampering::Target, found: &[Mismatch]) {
    let about = |mismatch: &&Mismatch| {
        let payment = mismatch
            .payment
            .is_some_and(|it| it.0 == target.stream || it.0 == target.entry);
        let entry = mismatch.entry.is_some_and(|it| it.0 == target.entry);
        let at = target.position;
        let place = match &mismatch.fault {
            Fault::EntryMissing { stream, .. } => *stream == target.stream,
            Fault::PositionGap { expected, found } => (*expected..*found).contains(&at),
            Fault::Tree(TreeFault::TileDiffers { tile, .. }) => {
                let below = at >> (8 * (u32::from(tile.level) + 1));
                u64::try_from(below) == Ok(tile.index)
            }
            Fault::Tree(_) if kind.reach == Reach::Whole => true,
            // What was cut off at the very end has no place that could be named.
            Fault::HeadDiffers { found, .. } => kind.reach == Reach::Whole || at >= *found,
            _ => mismatch
                .position
                .is_some_and(|it| i64::try_from(it) == Ok(at)),
        };
        payment || entry || place
    };
    let codes: Vec<&str> = found
        .iter()
        .filter(about)
        .map(|mismatch| mismatch.fault.code())
        .collect();
    assert!(
        kind.codes.iter().any(|code| codes.contains(code)),
        "{}: {target:?} was not detected as one of {:?}, but as {codes:?}",
        kind.name,
        kind.codes,
    );
}
