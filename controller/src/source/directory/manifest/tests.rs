use clusterlink_crds::wrong;

use super::*;

const IMPORT: &str = "apiVersion: clusterlink.net/v1alpha1
kind: Import
metadata:
  name: web
spec:
  port: 80
  sources: []
";

fn items(text: &str) -> Vec<Item> {
    read(Path::new("m.yaml"), text, &mut Memory::default())
}

/// Every fault as (document, line of the file, field, message).
fn faults(items: &[Item]) -> Vec<(u32, u32, String, String)> {
    let mut told = Vec::new();
    for item in items {
        let faults: &[Fault] = match &item.content {
            Content::Object(..) => &[],
            Content::Invalid(_, _, faults) => faults,
            Content::Unknown(_, fault) | Content::Foreign(_, _, fault) => {
                std::slice::from_ref(fault)
            }
        };
        for fault in faults {
            let line = item.line + fault.line;
            told.push((
                item.document,
                line,
                fault.field.clone(),
                fault.message.clone(),
            ));
        }
    }
    told
}

fn objects(items: &[Item]) -> Vec<String> {
    let object = |item: &Item| match &item.content {
        Content::Object(key, ..) => Some(key.to_string()),
        _ => None,
    };
    items.iter().filter_map(object).collect()
}

#[test]
fn every_complete_manifest_is_valid() {
    for manifest in wrong::complete_manifests() {
        let items = items(&manifest.to_string());
        assert_eq!(faults(&items), [], "{manifest:#}");
        assert_eq!(objects(&items).len(), 1);
    }
}

#[test]
fn every_wrong_field_is_told_with_its_line() {
    let all = wrong::wrong_manifests();
    assert!(all.len() > 250, "only {} manifests were derived", all.len());
    for wrong in all {
        let rendered = wrong.render();
        // Documents around it must neither suffer nor shift the line.
        let text = format!("# comment\n{IMPORT}---\n{}---\n{IMPORT}", rendered.text);
        let offset = 2 + u32::try_from(IMPORT.lines().count()).expect("a short text");
        let items = items(&text);
        let told = faults(&items);
        assert_eq!(objects(&items).len(), 2, "{}", wrong.what);
        assert!(
            !told.is_empty(),
            "{} is not told:\n{}",
            wrong.what,
            rendered.text
        );
        for (document, line, field, message) in told {
            assert_eq!(document, 2, "{}", wrong.what);
            assert_eq!(
                field, wrong.field,
                "{}: {message}\n{}",
                wrong.what, rendered.text
            );
            assert_eq!(
                line,
                rendered.line + offset,
                "{}: {message}\n{}",
                wrong.what,
                rendered.text
            );
        }
    }
}

#[test]
fn every_kind_of_mistake_is_told_where_it_is() {
    let table: &[(&str, &str, u32, &str, &str)] = &[
        (
            "a broken indentation",
            "kind: Import\n metadata:\n  x: 1\n",
            2,
            "",
            "not YAML",
        ),
        (
            "an unclosed quote",
            "kind: \"Import\nx: y\n",
            1,
            "",
            "not YAML",
        ),
        (
            "a field given twice",
            "kind: Import\nkind: Export\n",
            2,
            "",
            "given twice",
        ),
        ("an unknown alias", "kind: *nothing\n", 1, "", "not YAML"),
        (
            "an alias in itself",
            "kind: Import\nspec: &a [*a]\n",
            2,
            "",
            "alias stands inside",
        ),
        ("an unknown tag", "kind: !secret x\n", 1, "", "tag"),
        (
            "a list as document",
            "- kind: Import\n",
            1,
            "",
            "must be a mapping",
        ),
        ("a text as document", "hello\n", 1, "", "must be a mapping"),
        (
            "no kind",
            "apiVersion: v1\nmetadata: {name: a}\n",
            1,
            "kind",
            "is missing",
        ),
        (
            "a kind that is no text",
            "kind: [Import]\n",
            1,
            "kind",
            "must be a text",
        ),
        (
            "another kind",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n",
            2,
            "kind",
            "is skipped",
        ),
        (
            "no name",
            "apiVersion: v1\nkind: Service\nspec: {}\n",
            1,
            "metadata.name",
            "must be given",
        ),
        (
            "a number as name",
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: 7\n",
            4,
            "metadata.name",
            "quotes",
        ),
        (
            "no apiVersion",
            "kind: Service\nmetadata: {name: a}\n",
            1,
            "apiVersion",
            "write v1",
        ),
        (
            "a wrong apiVersion",
            "kind: Import\napiVersion: clusterlink.net/v1\nmetadata: {name: a}\n",
            2,
            "apiVersion",
            "clusterlink.net/v1alpha1",
        ),
        (
            "an unquoted label",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    import.clusterlink.net/merge: true\n",
            6,
            "metadata.labels[import.clusterlink.net/merge]",
            "write \"true\", with quotes",
        ),
        (
            "a wrong label value",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    a: -b-\n",
            6,
            "metadata.labels[a]",
            "is no label value",
        ),
        (
            "a wrong label key",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    a/b/c: d\n",
            6,
            "metadata.labels[a/b/c]",
            "is no label key",
        ),
        (
            "a wrong name",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: A_b\n",
            4,
            "metadata.name",
            "does not have the form",
        ),
        (
            "a wrong namespace",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: b.c\n",
            5,
            "metadata.namespace",
            "does not have the form",
        ),
        (
            "a port of a Service",
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - name: x\n    port: 70000\n",
            7,
            "spec.ports[0].port",
            "from 1 to 65535",
        ),
        (
            "no address type",
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\n",
            1,
            "addressType",
            "is missing",
        ),
        (
            "an item of a list",
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: a\n  spec:\n    hostNetwork: maybe\n",
            9,
            "items[0].spec.hostNetwork",
            "must be true or false",
        ),
        (
            "a list in a list",
            "apiVersion: v1\nkind: List\nitems:\n- kind: List\n",
            4,
            "items[0].kind",
            "must not stand in a list",
        ),
    ];
    for (what, text, line, field, message) in table {
        let items = items(&format!("{text}---\n{IMPORT}"));
        let told = faults(&items);
        assert_eq!(
            objects(&items),
            ["Import default/web"],
            "{what}: the other document must be read"
        );
        assert_eq!(told.len(), 1, "{what}: {told:?}");
        assert_eq!(
            (told[0].1, told[0].2.as_str()),
            (*line, *field),
            "{what}: {told:?}"
        );
        assert!(told[0].3.contains(message), "{what}: {told:?}");
    }
}

#[test]
fn unknown_fields_are_tolerated() {
    let text = format!("{IMPORT}  surprise: [1, 2]\nother: true\n");
    assert_eq!(faults(&items(&text)), []);
}

#[test]
fn documents_are_numbered_as_they_are_separated() {
    let text =
        format!("\u{feff}# only a comment\n---\n{IMPORT}...\n# between\n---\n---\n%bad: 1\n");
    let items = items(&text);
    assert_eq!(objects(&items), ["Import default/web"]);
    let told = faults(&items);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, 3);
}

#[test]
fn directives_belong_to_the_document_that_follows() {
    let items = items(&format!("%YAML 1.2\n---\n{IMPORT}"));
    assert_eq!(
        (objects(&items).len(), items[0].document, items[0].line),
        (1, 1, 1)
    );
}

#[test]
fn json_documents_follow_each_other_in_a_file() {
    let import = wrong::complete_manifests().swap_remove(2);
    let pretty = serde_json::to_string_pretty(&import)
        .expect("JSON")
        .replace("  ", "\t");
    let wrong = pretty.replace("\"port\": 80", "\"port\": 0");
    let text = format!("{import}{pretty}\n{wrong}\n {{\"kind\": \"Impo");
    let items = read(Path::new("m.json"), &text, &mut Memory::default());
    assert_eq!(objects(&items).len(), 2);
    let told = faults(&items);
    assert_eq!(told.len(), 2, "{told:?}");
    let line = |needle: &str| {
        let at = text.rfind(needle).expect("the text has it");
        1 + u32::try_from(text[..at].matches('\n').count()).expect("a short text")
    };
    assert_eq!(
        (told[0].0, told[0].1, told[0].2.as_str()),
        (3, line("\"port\": 0"), "spec.port")
    );
    assert_eq!((told[1].0, told[1].1), (4, line("\"Impo")), "{told:?}");
}

#[test]
fn lists_give_their_kind_to_items_without_one() {
    let text = "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n- metadata: {name: b, namespace: n}\n";
    assert_eq!(objects(&items(text)), ["Service default/a", "Service n/b"]);
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - &p {name: x, port: 80}\n  - {<<: *p, name: y}\n";
    let items = items(text);
    let Content::Object(_, _, object) = &items[0].content else {
        panic!("{items:?}")
    };
    let Object::Service(service) = &**object else {
        panic!("{object:?}")
    };
    let ports = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.clone())
        .unwrap_or_default();
    let ports: Vec<_> = ports
        .iter()
        .map(|port| (port.name.as_deref(), port.port))
        .collect();
    assert_eq!(ports, [(Some("x"), 80), (Some("y"), 80)]);
}

#[test]
fn bombs_are_refused() {
    let mut billion_laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}, ", level - 1).repeat(10);
        billion_laughs.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
    }
    for (what, text) in [
        ("aliases", billion_laughs),
        ("flow nesting", "[".repeat(1_000_000)),
        (
            "block nesting",
            (0..3000)
                .map(|n| format!("{}a:\n", " ".repeat(n)))
                .collect(),
        ),
        ("sequences", "- ".repeat(100_000)),
        ("anchors", (0..500).map(|n| format!("&a{n} [")).collect()),
    ] {
        let items = items(&format!("{text}\n---\n{IMPORT}"));
        assert_eq!(objects(&items), ["Import default/web"], "{what}");
        assert_eq!(faults(&items).len(), 1, "{what}");
    }
}

#[test]
fn scalars_mean_what_they_mean_to_an_api_server() {
    for (text, means) in [
        ("yes", "the boolean true"),
        ("off", "the boolean false"),
        ("0x10", "the number 16"),
        ("010", "the number 8"),
        ("1_000", "the number 1000"),
        ("-5", "the number -5"),
        ("8e1", "the number 80"),
        ("1.5", "the number 1.5"),
        ("1.2.3", "the text \"1.2.3\""),
        ("2026-01-31", "the text \"2026-01-31\""),
        ("\"yes\"", "the text \"yes\""),
        ("!!str 5", "the text \"5\""),
        (".", "the text \".\""),
    ] {
        let node = yaml::parse(&format!("a: {text}"), &mut Copies::default());
        let node = node.expect("valid YAML").expect("a document");
        assert_eq!(
            node.entry("a")
                .map(|entry| entry.value.describe())
                .as_deref(),
            Some(means)
        );
    }
}

#[test]
fn unchanged_documents_are_not_read_again() {
    let mut memory = Memory::default();
    let path = Path::new("m.yaml");
    let first = read(path, &format!("---\n{IMPORT}"), &mut memory);
    let second = read(
        path,
        &format!("# one line more\n---\na: b\n---\n{IMPORT}"),
        &mut memory,
    );
    let object = |item: &Item| match &item.content {
        Content::Object(_, _, object) => Arc::clone(object),
        other => panic!("{other:?}"),
    };
    assert_eq!(second[1].document, 2);
    assert_eq!(second[1].line, 4);
    assert!(Arc::ptr_eq(&object(&first[0]), &object(&second[1])));
    assert_eq!(
        memory.documents.len(),
        2,
        "what is not there any more is forgotten"
    );
    let third = read(path, &format!("---\na: b\n---\n{IMPORT}"), &mut memory);
    assert!(Arc::ptr_eq(&object(&second[1]), &object(&third[1])));
}
