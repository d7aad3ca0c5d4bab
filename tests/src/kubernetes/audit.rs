//! What accounts of the system namespace have asked of the API server, and what it answered, by its
//! audit log.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::ControlPlane;

/// One request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it arrived, in UTC with microseconds: texts are in the order of the times.
    pub at: String,
    /// The address that it came from.
    pub from: IpAddr,
    /// What was to be done.
    pub verb: String,
    /// With which resource or `resource/subresource`.
    pub resource: String,
    /// The object as `namespace/name`.
    pub object: String,
    /// The name of the object, if one is named.
    pub name: Option<String>,
    /// The account.
    pub user: String,
    /// The HTTP status.
    pub code: u64,
}

impl Request {
    /// Whether it was refused for want of a right.
    pub fn is_refused(&self) -> bool {
        self.code == 403
    }

    /// Whether it is to change an object that people see; the lease is none.
    pub fn writes(&self) -> bool {
        let changes = ["create", "update", "patch", "delete"].contains(&&*self.verb);
        changes && !["leases", "tokenreviews"].contains(&&*self.resource)
    }

    fn read(event: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let mut resource = text(&object["resource"]);
        if let Some(subresource) = object["subresource"].as_str() {
            resource = format!("{resource}/{subresource}");
        }
        Ok(Self {
            at: text(&event["requestReceivedTimestamp"]),
            from: text(&event["sourceIPs"][0]).parse()?,
            verb: text(&event["verb"]),
            resource,
            object: format!("{}/{}", text(&object["namespace"]), text(&object["name"])),
            name: object["name"].as_str().map(str::to_owned),
            user: text(&event["user"]["username"]),
            code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
        })
    }
}

/// Reads the API server's audit log as it grows.
#[derive(Debug)]
pub struct Audit {
    file: PathBuf,
    read: u64,
}

impl Audit {
    /// What was answered since the last call.
    pub fn answered(&mut self) -> Result<Vec<Request>> {
        let path = self.file.display();
        let mut file = fs::File::open(&self.file).with_context(|| format!("cannot open {path}"))?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        file.read_to_string(&mut text)
            .with_context(|| format!("cannot read {path}"))?;
        // The last line may not be whole yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        self.read += u64::try_from(whole.len())?;
        whole
            .lines()
            .map(|line| {
                let event = serde_json::from_str(line).context("no JSON");
                let request = event.and_then(|event| Request::read(&event));
                request.with_context(|| format!("the audit log says {line}"))
            })
            .collect()
    }
}

impl ControlPlane {
    /// The requests from now on.
    pub fn audit(&self) -> Result<Audit> {
        let file = log(&self.directory);
        let read = fs::metadata(&file).map_or(0, |metadata| metadata.len());
        Ok(Audit { file, read })
    }

    /// Every request since the start, in the order of the answers.
    pub fn requests(&self) -> Result<Vec<Request>> {
        let file = log(&self.directory);
        let requests = Audit { file, read: 0 }.answered()?;
        ensure!(!requests.is_empty(), "the audit log is empty");
        Ok(requests)
    }
}

fn log(directory: &Path) -> PathBuf {
    directory.join("audit.log")
}

/// Writes the rules of what is logged, and gives the flags for it.
pub(super) fn flags(directory: &Path) -> Result<[String; 2]> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            {"level": "Metadata", "userGroups": ["system:serviceaccounts:clusterlink-system"]},
            {"level": "None"},
        ],
    });
    let file = directory.join("audit-policy.json");
    fs::write(&file, policy.to_string())
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok([
        format!("--audit-policy-file={}", file.display()),
        format!("--audit-log-path={}", log(directory).display()),
    ])
}
