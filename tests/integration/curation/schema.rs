//! Checks JSON against the schemas of an OpenAPI document, as far as ours uses JSON Schema.

use serde_json::Value;

/// What is wrong with the value; empty if it is as the schema says.
pub fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check(document, schema, value, "$", &mut faults);
    faults
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').unwrap();
        let target = document.pointer(pointer).unwrap_or_else(|| panic!("{reference} does not exist"));
        return check(document, target, value, at, faults);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        if !any.iter().any(|schema| self::faults(document, schema, value).is_empty()) {
            faults.push(format!("{at}: {value} fits none of the schemas"));
        }
        return;
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().into_iter().collect(),
    };
    let is = |name: &&str| match *name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    };
    if !types.is_empty() && !types.iter().any(is) {
        return faults.push(format!("{at}: {value} is not {types:?}"));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        faults.push(format!("{at}: {value} is not one of {values:?}"));
    }
    match value {
        Value::Object(fields) => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            faults.extend(
                required.filter(|name| !fields.contains_key(*name)).map(|name| format!("{at}.{name} is missing")),
            );
            for (name, field) in fields {
                match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (Value::Null, Value::Bool(false)) => faults.push(format!("{at}.{name} is not described")),
                    (Value::Null, other @ Value::Object(_)) => {
                        check(document, other, field, &format!("{at}.{name}"), faults);
                    }
                    (Value::Null, _) => {}
                    (described, _) => check(document, described, field, &format!("{at}.{name}"), faults),
                }
            }
        }
        Value::Array(items) => {
            let length = items.len() as u64;
            if schema["maxItems"].as_u64().is_some_and(|most| length > most)
                || schema["minItems"].as_u64().is_some_and(|least| length < least)
            {
                faults.push(format!("{at} has {length} items"));
            }
            if let item @ Value::Object(_) = &schema["items"] {
                for (number, one) in items.iter().enumerate() {
                    check(document, item, one, &format!("{at}[{number}]"), faults);
                }
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap();
            if schema["minimum"].as_f64().is_some_and(|least| number < least)
                || schema["maximum"].as_f64().is_some_and(|most| number > most)
            {
                faults.push(format!("{at}: {number} is out of range"));
            }
        }
        _ => {}
    }
}

#[test]
fn values_that_do_not_fit_are_reported() {
    let document = serde_json::json!({ "components": { "schemas": { "Name": { "type": "string" } } } });
    let schema = serde_json::json!({
        "type": "object", "required": ["a", "b"], "additionalProperties": false,
        "properties": { "a": { "$ref": "#/components/schemas/Name" }, "b": { "type": ["integer", "null"], "minimum": 1 },
                        "c": { "type": "array", "items": { "enum": ["x", "y"] }, "maxItems": 2 } }
    });
    let faults = |value| faults(&document, &schema, &value);
    assert!(faults(serde_json::json!({ "a": "x", "b": null, "c": ["x"] })).is_empty());
    for (value, part) in [
        (serde_json::json!({ "a": 1, "b": 1 }), "$.a: 1 is not"),
        (serde_json::json!({ "a": "x" }), "$.b is missing"),
        (serde_json::json!({ "a": "x", "b": 1.5 }), "$.b: 1.5 is not"),
        (serde_json::json!({ "a": "x", "b": 0 }), "$.b: 0 is out of range"),
        (serde_json::json!({ "a": "x", "b": 1, "d": 1 }), "$.d is not described"),
        (serde_json::json!({ "a": "x", "b": 1, "c": ["z"] }), "$.c[0]"),
        (serde_json::json!({ "a": "x", "b": 1, "c": ["x", "x", "x"] }), "$.c has 3 items"),
    ] {
        let found = faults(value.clone());
        assert!(found.iter().any(|fault| fault.contains(part)), "{value}: {found:?}");
    }
}
