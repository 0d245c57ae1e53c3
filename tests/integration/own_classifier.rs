//! Classifiers of other makers: what fits is used, and what does not is refused with the reason.

use std::path::Path;

use facemill::classifier::model::{MAX_BYTES, meta};
use facemill::inference::onnx::{
    AttributeProto, Dim, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto, elem,
};

use crate::classifier::facemill;
use crate::training::run_folder;

/// A classifier whose P(OK) is the mean brightness of the crop. The second name is stored: it makes another file.
pub fn brightness(version: &str) -> ModelProto {
    model("brightness", version, crop_input(), "p_ok", 1.0 / 255.0)
}

fn batch() -> Dim<'static> {
    Dim::Named("batch")
}

fn crop_input() -> ValueInfoProto {
    let side = Dim::Fixed(224);
    ValueInfoProto::tensor("crop", elem::UINT8, &[batch(), side, side, Dim::Fixed(3)])
}

/// The mean over all dimensions but the first of the input, times a factor.
fn model(name: &str, version: &str, input: ValueInfoProto, output: &str, factor: f32) -> ModelProto {
    let of_crop = input.name.clone().unwrap();
    let axes = [1, 2, 3][..input_rank(&input) - 1].to_vec();
    let graph = GraphProto {
        name: Some("brightness".into()),
        node: vec![
            NodeProto::new("Cast", &[&of_crop], &["numbers"]).with(AttributeProto::int("to", elem::FLOAT.into())),
            NodeProto::new("ReduceMean", &["numbers"], &["mean"])
                .with(AttributeProto::ints("axes", &axes))
                .with(AttributeProto::int("keepdims", 0)),
            NodeProto::new("Mul", &["mean", "factor"], &[output]),
        ],
        initializer: vec![TensorProto::floats("factor", &[], &[factor])],
        input: vec![input],
        output: vec![ValueInfoProto::floats(output, &[batch()])],
        ..GraphProto::default()
    };
    let mut model = ModelProto::new(graph, 13);
    for (key, value) in
        [(meta::NAME, name), (meta::VERSION, version), (meta::THRESHOLD, "0.5"), (meta::LABELS, "ng,ok")]
    {
        model.metadata_props.push(StringStringEntryProto::new(key, value));
    }
    model
}

fn input_rank(input: &ValueInfoProto) -> usize {
    use facemill::inference::onnx::TypeValue;
    let Some(TypeValue::TensorType(tensor)) = input.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        panic!("not a tensor")
    };
    tensor.shape.as_ref().unwrap().dim.len()
}

/// The brightness model with another value of a metadata entry. None: without the entry.
fn with_entry(key: &str, value: Option<&str>) -> ModelProto {
    let mut model = brightness("1");
    model.metadata_props.retain(|entry| entry.key() != key);
    model.metadata_props.extend(value.map(|value| StringStringEntryProto::new(key, value)));
    model
}

/// The brightness model with a second node after the mean.
fn with_output(operator: &str, inputs: &[&str]) -> ModelProto {
    let mut model = brightness("1");
    model.graph.as_mut().unwrap().node[2] = NodeProto::new(operator, inputs, &["p_ok"]);
    model
}

fn refusal(out: &Path, command: &[&str], file: &Path) -> String {
    let file = file.to_str().unwrap();
    let arguments = [command, &[file, "--out", out.to_str().unwrap()]].concat();
    let output = facemill(&arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{arguments:?}: {error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_fit_is_refused_before_a_crop_is_scored() {
    let folder = run_folder().await;
    let out = folder.path();
    let side = Dim::Fixed(224);
    let shape = |sides: &[Dim<'static>]| ValueInfoProto::tensor("crop", elem::UINT8, sides);
    let floats = ValueInfoProto::floats("crop", &[batch(), side, side, Dim::Fixed(3)]);
    let mut mirrored = brightness("1");
    let more = ValueInfoProto::floats("mirrored", &[batch(), Dim::Fixed(17)]);
    mirrored.graph.as_mut().unwrap().input.push(more);
    let mut further = brightness("1");
    further.graph.as_mut().unwrap().input.push(ValueInfoProto::floats("age", &[batch()]));
    let mut unknown = brightness("1");
    unknown.graph.as_mut().unwrap().node[2].op_type = Some("Magic".into());
    let of_batch = {
        let mut model = with_output("Add", &["share", "of_batch"]);
        let graph = model.graph.as_mut().unwrap();
        let tenth = TensorProto::floats("tenth", &[], &[0.001]);
        let sum = NodeProto::new("ReduceMean", &["mean"], &["mean_of_batch"]).with(AttributeProto::int("keepdims", 0));
        graph.node.splice(
            2..2,
            [
                NodeProto::new("Mul", &["mean", "tenth"], &["share"]),
                sum,
                NodeProto::new("Mul", &["mean_of_batch", "tenth"], &["of_batch"]),
            ],
        );
        graph.initializer.push(tenth);
        model
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("text", b"not a model".to_vec(), "not an ONNX model"),
        ("empty", Vec::new(), "no `name`"),
        ("nameless", with_entry(meta::NAME, None).encode(), "no `name` in its metadata"),
        ("odd-name", with_entry(meta::NAME, Some("a/../b")).encode(), "its name is not 1 to 64 of"),
        ("no-version", with_entry(meta::VERSION, None).encode(), "no `version`"),
        ("no-threshold", with_entry(meta::THRESHOLD, None).encode(), "no `threshold`"),
        ("percent", with_entry(meta::THRESHOLD, Some("50")).encode(), "its threshold is not a number from 0 to 1"),
        ("nan", with_entry(meta::THRESHOLD, Some("nan")).encode(), "its threshold is not a number from 0 to 1"),
        ("labels", with_entry(meta::LABELS, Some("ok,ng")).encode(), "its labels are `ok,ng` instead of `ng,ok`"),
        ("floats", model("x", "1", floats, "p_ok", 0.001).encode(), "`crop` is"),
        (
            "channels-first",
            model("x", "1", shape(&[batch(), Dim::Fixed(3), side, side]), "p_ok", 0.001).encode(),
            "with the shape [N, 224, 224, 3], N free",
        ),
        ("one", model("x", "1", shape(&[Dim::Fixed(1), side, side, Dim::Fixed(3)]), "p_ok", 0.001).encode(), "N free"),
        ("rank", model("x", "1", shape(&[batch(), side]), "p_ok", 0.001).encode(), "`crop` is"),
        (
            "input",
            model("x", "1", ValueInfoProto { name: Some("image".into()), ..crop_input() }, "p_ok", 0.001).encode(),
            "an input `image` that no crop fills",
        ),
        ("mirrored", mirrored.encode(), "`mirrored` is"),
        ("further", further.encode(), "an input `age` that no crop fills"),
        ("output", model("x", "1", crop_input(), "score", 0.001).encode(), "no output `p_ok`"),
        ("logit", model("x", "1", crop_input(), "p_ok", 1.0).encode(), "not one number from 0 to 1 per crop"),
        ("negative", model("x", "1", crop_input(), "p_ok", -0.001).encode(), "not one number from 0 to 1 per crop"),
        (
            "not-a-number",
            model("x", "1", crop_input(), "p_ok", f32::NAN).encode(),
            "not one number from 0 to 1 per crop",
        ),
        ("operator", unknown.encode(), "onnxruntime rejects it"),
        ("batch", of_batch.encode(), "depends on the other crops of its batch"),
    ];
    for (name, bytes, reason) in cases {
        let file = out.join(format!("{name}.onnx"));
        std::fs::write(&file, bytes).unwrap();
        for command in [&["rescore", "--model"][..], &["models", "use"]] {
            let error = refusal(out, command, &file);
            let source = format!("{name}.onnx is not a facemill classifier: ");
            assert!(error.contains(&source), "{name}: {error}");
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
    let huge = out.join("huge.onnx");
    std::fs::File::create(&huge).unwrap().set_len(MAX_BYTES + 1).unwrap();
    assert!(refusal(out, &["rescore", "--model"], &huge).contains("268435456 are the most"));
    let missing = out.join("missing.onnx");
    let error = refusal(out, &["rescore", "--model"], &missing);
    assert!(error.contains("neither a file nor a stored classifier"), "{error}");
    for folder in ["models", "predictions", "rescores"] {
        assert!(!out.join(folder).exists(), "{folder}: something was stored");
    }
}
