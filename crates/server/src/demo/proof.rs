//! The last scene: what nobody needs to believe, because anybody can check it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use quittance_evidence::bundle::{Bundle, TrustedKeys};
use quittance_evidence::note::{Note, VerifierKey};
use quittance_evidence::tree::verify_inclusion;
use quittance_evidence::{Hash, Receipt, SignedCheckpoint, leaf_hash};

use super::client::Client;
use super::show::{self, Show};

/// How often it is asked for a proof, and how many times: an entry is merged and signed within about a second.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const MAX_LOOKS: u32 = 300;

/// Has an entry proved, and checks the proof with nothing but the published keys.
pub(super) async fn of_an_entry(
    client: &mut Client,
    show: &Show,
    payment_id: &str,
    keys: &[VerifierKey; 2],
) -> anyhow::Result<()> {
    let [log, receipts] = keys;
    show.scene(7, "Proof: checked here, with the published keys alone");
    let entries = client.entries(payment_id).await?;
    // Those that tell who read the trail are entries of the tenant.
    let mut own = entries.iter().filter(|entry| entry.stream_id == payment_id);
    let last = own.next_back().context("the payment has no entries")?;
    let entry = client.entry(&last.entry_id).await?;
    let leaf = leaf_hash(&entry.leaf_data);

    let receipt = entry.receipt.context("the entry has no receipt")?;
    let note = Note::parse(receipt.signed_note.as_bytes())?;
    let promised = Receipt::open(&note, std::slice::from_ref(receipts))?;
    ensure!(
        promised.leaf_hash == leaf,
        "the receipt is for another entry"
    );
    show::fact(&format!(
        "receipt of entry {}: signed by {}",
        promised.entity_seq,
        receipts.name()
    ));

    let proved = proved(client, &last.entry_id).await?;
    let checkpoint = proved.checkpoint.context("there is no checkpoint")?;
    let note = Note::parse(checkpoint.signed_note.as_bytes())?;
    let signed = SignedCheckpoint::open(&note, std::slice::from_ref(log))?;
    let tree = signed.checkpoint;
    show::fact(&format!(
        "checkpoint of {} entries, root {}: signed by {}",
        tree.size,
        tree.root,
        log.name()
    ));
    let proof = proved.proof.context("there is no proof")?;
    let mut path = Vec::new();
    for hash in &proof.hashes {
        let bytes: [u8; 32] = hash.as_slice().try_into().context("not a hash")?;
        path.push(Hash::from_bytes(bytes));
    }
    verify_inclusion(&leaf, proof.leaf_index, tree.size, &path, &tree.root)?;
    show::fact(&format!(
        "entry {} is leaf {} of that tree: {} hashes prove it",
        entry.entity_seq,
        proof.leaf_index,
        path.len()
    ));
    show.note("Whoever changes, removes or adds an entry later cannot make this proof true again.");
    Ok(())
}

/// Exports the evidence of a payment, and checks it as whoever gets the file does; and that a changed file is none.
pub(super) async fn of_a_payment(
    client: &mut Client,
    show: &Show,
    payment_id: &str,
    keys: &[VerifierKey; 2],
) -> anyhow::Result<()> {
    show.scene(8, "Evidence: one file, checked without any server");
    let exported = client.evidence(payment_id).await?;
    let keys = TrustedKeys::new(keys.to_vec());
    let report = Bundle::decode(&exported.bundle)?.verify(&keys);
    ensure!(report.is_proved(), "the exported evidence proves nothing");
    show::fact(&format!(
        "{}: {} bytes, {} entries, PROVED with the published keys",
        exported.file_name,
        exported.bundle.len(),
        report.entries.len()
    ));
    let text = String::from_utf8(exported.bundle)?;
    // An amount, where the entries have one: 12 euros become 92.
    let changed = text.replacen("amount_minor\\\":\\\"1", "amount_minor\\\":\\\"9", 1);
    ensure!(changed != text, "there was no amount to change");
    let forged = Bundle::decode(changed.as_bytes())?.verify(&keys);
    ensure!(!forged.is_proved(), "a changed amount was not noticed");
    let failed: Vec<_> = forged.failures().map(|(check, _)| check.as_str()).collect();
    show::fact(&format!(
        "the same file with one digit of an amount changed: NOT PROVED ({})",
        failed.join(", ")
    ));
    show.note("`quittance audit export` writes it; `quittance evidence verify` and docs/verify_evidence.py check it offline.");
    Ok(())
}

/// The proof, once the entry is merged and signed.
async fn proved(
    client: &mut Client,
    entry_id: &str,
) -> anyhow::Result<quittance_proto::v1::GetInclusionProofResponse> {
    for _ in 0..MAX_LOOKS {
        if let Some(proved) = client.inclusion(entry_id).await? {
            return Ok(proved);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    anyhow::bail!("entry {entry_id} was not merged within a minute")
}
