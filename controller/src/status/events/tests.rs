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
    let key = Key::Export(clusterlink_model::ObjectName::new("shop", "web"));
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
struct Heard(Arc<std::sync::Mutex<Vec<Happening>>>);

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
    let settle = || tokio::time::sleep(std::time::Duration::from_secs(1));
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
