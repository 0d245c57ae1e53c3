//! Whom a face looks like.

use serde_json::json;
use support::curation::CuratedRun;

use super::inside;

#[tokio::test(flavor = "multi_thread")]
async fn a_face_names_its_identity_and_the_person_that_it_looks_like() {
    let run = CuratedRun::in_folder(1).await;
    for (id, label) in [(1, "Ada"), (2, "Ada"), (3, "Grace"), (4, "Grace"), (5, "Grace")] {
        run.classify_named(id, label).await;
    }
    {
        let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
        assert_eq!(api.get("/api/faces/3").await["identity"], json!(null));
        assert_eq!(api.get("/api/statistics").await["wrong_persons"], json!(null), "nobody has looked");
    }
    run.identify(&[&[1, 2, 3], &[4, 5]]).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let identity = async |id: u64| api.get(&format!("/api/faces/{id}")).await["identity"].clone();
    assert_eq!(identity(0).await, json!(null));
    assert_eq!(identity(1).await, json!({ "number": 1, "faces": 3, "looks_like": null }));
    assert_eq!(identity(3).await, json!({ "number": 1, "faces": 3, "looks_like": "Ada" }));
    assert_eq!(identity(4).await, json!({ "number": 2, "faces": 2, "looks_like": null }));
    assert_eq!(api.get("/api/statistics").await["wrong_persons"], json!(1));
    for (query, faces) in [("identity%3D1", 3), ("wrong_person", 1)] {
        assert_eq!(api.get(&format!("/api/faces?where={query}")).await["total"], json!(faces), "{query}");
    }
}
