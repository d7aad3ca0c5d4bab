use super::*;

fn condition(status: &str, reason: &str) -> Condition {
    Condition {
        type_: "ExportValid".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: "create it".to_owned(),
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            jiff::Timestamp::UNIX_EPOCH,
        ),
        observed_generation: None,
    }
}

#[test]
fn people_hear_of_what_turns_bad_and_of_what_turns_good() {
    let row = |row, before: Option<(&'static str, &'static str)>, after, wanted| {
        (row, before, after, wanted)
    };
    for (row, before, after, wanted) in [
        row("well from the start", None, ("True", "Valid"), None),
        row(
            "bad from the start",
            None,
            ("False", "ServiceNotFound"),
            Some(true),
        ),
        row("not known yet", None, ("Unknown", "NoAgents"), None),
        row(
            "turned bad",
            Some(("True", "Valid")),
            ("False", "ServiceNotFound"),
            Some(true),
        ),
        row(
            "turned good",
            Some(("False", "ServiceNotFound")),
            ("True", "Valid"),
            Some(false),
        ),
        row(
            "found again",
            Some(("Unknown", "NoAgents")),
            ("True", "Reachable"),
            Some(false),
        ),
        row(
            "lost sight of",
            Some(("True", "Reachable")),
            ("Unknown", "NoAgents"),
            Some(true),
        ),
        row(
            "bad for another reason",
            Some(("False", "ServiceNotFound")),
            ("False", "PortNotFound"),
            Some(true),
        ),
        row(
            "bad as before",
            Some(("False", "PortNotFound")),
            ("False", "PortNotFound"),
            None,
        ),
        row(
            "good for another reason",
            Some(("True", "Allocated")),
            ("True", "Valid"),
            None,
        ),
        row(
            "doubtful from the start",
            None,
            ("True", "ClientWithoutPeer"),
            Some(true),
        ),
        row(
            "some agents do not serve it",
            Some(("True", "Allocated")),
            ("True", "NotOnAllNodes"),
            Some(true),
        ),
        row(
            "all serve it again",
            Some(("True", "NotOnAllNodes")),
            ("True", "Allocated"),
            None,
        ),
        row(
            "doubtful now",
            Some(("True", "Valid")),
            ("True", "ClientWithoutPeer"),
            Some(true),
        ),
    ] {
        let before = before.map(|(status, reason)| condition(status, reason));
        let after = condition(after.0, after.1);
        assert_eq!(worth_telling(before.as_ref(), &after), wanted, "{row}");
    }
}

#[test]
fn a_happening_names_the_object_and_the_cure() {
    let key = Key::Export(ObjectName::new("shop", "web"));
    let metadata = ObjectMeta {
        name: Some("web".to_owned()),
        namespace: Some("shop".to_owned()),
        uid: Some("u".to_owned()),
        ..ObjectMeta::default()
    };
    let told = of_change(
        &key,
        &metadata,
        &[],
        &[condition("False", "ServiceNotFound")],
    );
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].note, "ExportValid is False: create it");
    let object = &told[0].object;
    assert_eq!(object.kind.as_deref(), Some("Export"));
    assert_eq!(
        (object.namespace.as_deref(), object.uid.as_deref()),
        (Some("shop"), Some("u"))
    );
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Happening>>>);

impl Teller for Heard {
    fn tell(&self, happening: Happening) {
        self.0.lock().unwrap().push(happening);
    }
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_object_is_told_once_and_by_the_leader_only() {
    let problem = |object: &str| crate::source::Problem {
        place: crate::source::Place {
            file: "the API server".to_owned(),
            document: None,
            line: None,
        },
        kind: Some("Import".to_owned()),
        object: Some(object.to_owned()),
        field: None,
        message: "cannot be decoded".to_owned(),
        stale: true,
    };
    let (problems, reader) = watch::channel(Arc::new(vec![problem("shop/web")]));
    let (leads, leadership) = watch::channel(Leadership::default());
    let heard = Heard::default();
    let task = tokio::spawn(undecodable(reader, leadership, heard.clone()));
    let names = || -> Vec<_> {
        let heard = heard.0.lock().unwrap();
        heard
            .iter()
            .filter_map(|one| one.object.name.clone())
            .collect()
    };
    let settle = || tokio::time::sleep(Duration::from_secs(1));
    settle().await;
    assert!(names().is_empty());
    leads.send_replace(Leadership {
        leading: true,
        holder: None,
    });
    settle().await;
    problems.send_replace(Arc::new(vec![problem("shop/web"), problem("shop/api")]));
    settle().await;
    problems.send_replace(Arc::new(vec![problem("shop/api")]));
    settle().await;
    assert_eq!(names(), ["web", "api"]);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_keeps_an_address_is_told_of_at_the_service_each_for_itself() {
    let of = |node: &str| Keeping {
        service: ObjectName::new("shop", "web"),
        uid: "u".to_owned(),
        addresses: ["10.96.0.7".parse().unwrap()].into(),
        node: node.into(),
        agent: Some(ObjectName::new("system", format!("agent-{node}"))),
    };
    let (kept, reader) = watch::channel(Arc::new(BTreeSet::from([of("n1")])));
    let leads = Leadership {
        leading: true,
        holder: None,
    };
    let (_leads, leadership) = watch::channel(leads);
    let heard = Heard::default();
    let task = tokio::spawn(keeping(reader, leadership, heard.clone()));
    let settle = || tokio::time::sleep(Duration::from_secs(1));
    settle().await;
    kept.send_replace(Arc::new([of("n1"), of("n2")].into()));
    settle().await;
    let heard = heard.0.lock().unwrap().clone();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(heard[0].object.kind.as_deref(), Some("Service"));
    assert_eq!(heard[0].object.uid.as_deref(), Some("u"));
    let note = &heard[0].note;
    assert!(
        note.starts_with("10.96.0.7 cannot be given up: agent system/agent-n1 on node n1"),
        "{note}"
    );
    assert_ne!(
        heard[0].related, heard[1].related,
        "they would be one Event"
    );
    task.abort();
}

#[test]
fn conditions_that_turn_well_at_once_are_an_event_each() {
    let key = Key::Import(ObjectName::new("shop", "web"));
    let of = |type_: &str, status| Condition {
        type_: type_.to_owned(),
        ..condition(status, "Valid")
    };
    let all =
        |status| ["ImportServiceValid", "ImportTargetPortValid"].map(|type_| of(type_, status));
    let metadata = ObjectMeta::default();
    let told = of_change(&key, &metadata, &all("False"), &all("True"));
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].reason, told[1].reason);
    assert_ne!(told[0].action, told[1].action, "they would be one Event");
}

#[test]
fn a_fault_is_told_once_until_it_is_another() {
    let heard = Heard::default();
    let mut faults = Faults::of("Secret", ObjectName::new("system", "ca"));
    faults.found(None, "nobody hears it".to_owned());
    faults.tell_by(Arc::new(heard.clone()));
    for note in ["no key", "no key", "no certificate", "no key"] {
        faults.found(Some("u".to_owned()), note.to_owned());
    }
    faults.none();
    faults.found(None, "no key".to_owned());
    let heard = heard.0.lock().unwrap();
    let notes: Vec<_> = heard.iter().map(|one| &*one.note).collect();
    assert_eq!(notes, ["no key", "no certificate", "no key", "no key"]);
    assert_eq!(heard[0].object.name.as_deref(), Some("ca"));
}

#[test]
fn the_log_tells_of_failures_now_and_then_with_their_number() {
    let start = Instant::now();
    let mut failures = Failures::default();
    let rows = [
        (0, Some(1)),
        (1, None),
        (59, None),
        (60, Some(3)),
        (61, None),
    ];
    for (second, wanted) in rows {
        let told = failures.failed(start + Duration::from_secs(second));
        assert_eq!(told, wanted, "in second {second}");
    }
}
