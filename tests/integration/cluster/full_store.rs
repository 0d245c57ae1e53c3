//! An object store without room.

use std::fs::{File, read_to_string};

use super::ended;
use super::installation::{Installation, Worker};
use support::collection::Collection;
use support::servers::redis::RedisServer;
use support::servers::seaweedfs::SeaweedFs;

#[test]
fn a_photo_waits_for_room_in_the_store() {
    let collection = Collection::serve();
    let mut store = SeaweedFs::start();
    let installation = Installation::on_servers(RedisServer::shared(), &store);
    let scratch = tempfile::tempdir().unwrap();
    let (table, log) = (scratch.path().join("table.csv"), scratch.path().join("log"));
    let (id, row) = collection.row_of_a_face();
    std::fs::write(&table, row).unwrap();
    let table = table.to_str().unwrap();
    assert_eq!(installation.json(&["produce", table])["new"], 1);
    installation.json(&["pause", "fetch"]);
    let arguments = [&["work", "fetch", "detect", "crop", "classify"], &collection.stage_arguments()[..]].concat();
    let mut worker = Worker(installation.command(&arguments).stderr(File::create(&log).unwrap()).spawn().unwrap());
    installation.until("the worker", |status| status["workers"].as_array().is_some_and(|workers| workers.len() == 1));
    store.process.kill();
    store.restart_full();
    installation.json(&["resume", "fetch"]);

    installation.until("a photo that waits", |status| status["stages"]["fetch"]["delayed"] == 1);
    let story = installation.json(&["why", &id]);
    assert_eq!((&story["cause"]["code"], &story["attempt"]), (&"store-unavailable".into(), &1.into()), "{story}");
    let said = read_to_string(&log).unwrap();
    assert_eq!(said.matches("photos wait until it works again, and none is lost").count(), 1, "{said}");
    // Whoever starts meanwhile says what is wrong, and takes nothing from a queue.
    for command in [&["produce", table][..], &["work", "fetch"]] {
        let refused = installation.facemill(command);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(3), "{command:?}: {said}");
        assert!(said.contains("cannot write .check-"), "{command:?}: {said}");
    }

    store.process.kill();
    store.restart();
    let status = installation.until("the end of the photo", |status| ended(status) == 1);
    assert_eq!(status["ended"]["predicted"], 1, "{status}");
    assert_eq!(worker.terminate(), Some(0));
    assert_eq!(installation.json(&["audit", table, "--files"])["faults"].as_array().unwrap().len(), 0);
}
