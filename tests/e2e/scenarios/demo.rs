//! What a newcomer runs first.

use quittance_test_support::TestDb;

use crate::harness::process;

/// Every scene checks what it shows, so that it is enough to see that all were played.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_plays_every_scene_and_leaves_nothing_behind() {
    let empty = TestDb::unmigrated().await;
    let mut command = process::command(&["demo"]);
    command.env("DATABASE_URL", empty.url());
    // A busy machine is not a broken database.
    command.env("QUITTANCE_DATABASE__UNAVAILABLE_AFTER_MS", "60000");
    let played = tokio::task::spawn_blocking(move || command.output().unwrap());
    let played = played.await.unwrap();
    let told = String::from_utf8(played.stdout).unwrap();
    let failed = String::from_utf8_lossy(&played.stderr);
    assert!(played.status.success(), "{told}\n{failed}");
    assert!(failed.is_empty(), "{failed}");
    let scenes: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_once(". ").map(|(number, _)| number))
        .filter(|number| number.parse::<u8>().is_ok())
        .collect();
    assert_eq!(
        scenes,
        ["1", "2", "3", "4", "5", "6", "7", "8", "9"],
        "{told}"
    );
}
