//! The writer against an API server of one Service, over loopback.

use std::sync::Mutex;

use axum::{Json, Router, extract::State, http::StatusCode, routing};
use clusterlink_model::ObjectName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

/// The Service, while it exists, and what was asked.
#[derive(Default)]
struct Server {
    version: Mutex<Option<&'static str>>,
    deletes: watch::Sender<usize>,
}

impl Server {
    async fn start(self: Arc<Self>) -> Client {
        // A test of this process may have installed it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let path = "/api/v1/namespaces/shop/services/web";
        let router = Router::new()
            .route(path, routing::delete(delete))
            .with_state(self);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Client::try_from(kube::Config::new(at.parse().unwrap())).unwrap()
    }

    async fn wait_deletes(&self, number: usize) {
        let mut deletes = self.deletes.subscribe();
        let seen = deletes.wait_for(|deletes| *deletes >= number);
        timeout(Duration::from_secs(30), seen)
            .await
            .expect("the writer asks")
            .unwrap();
    }
}

async fn delete(
    State(server): State<Arc<Server>>,
    Json(options): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let mut version = server.version.lock().unwrap();
    let wanted = options["preconditions"]["resourceVersion"].as_str();
    let (code, reason) = match *version {
        None => (StatusCode::NOT_FOUND, "NotFound"),
        Some(version) if wanted.is_some_and(|wanted| wanted != version) => {
            (StatusCode::CONFLICT, "Conflict")
        }
        Some(_) => {
            *version = None;
            (StatusCode::OK, "")
        }
    };
    drop(version);
    server.deletes.send_modify(|deletes| *deletes += 1);
    let status = if code.is_success() {
        "Success"
    } else {
        "Failure"
    };
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": status,
        "message": reason, "reason": reason, "code": code.as_u16()});
    (code, Json(answer))
}

fn as_of(version: &str) -> Write {
    Write::delete(&ObjectMeta {
        uid: Some("u".to_owned()),
        resource_version: Some(version.to_owned()),
        ..ObjectMeta::default()
    })
}

fn web() -> WriteKey {
    WriteKey {
        kind: Kind::Service,
        name: ObjectName::new("shop", "web"),
    }
}

/// A writer that leads, and its server.
struct Writing {
    server: Arc<Server>,
    desired: Desired,
    _leads: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Writing {
    /// There is a Service of version 2, and the writer finds this decided about it.
    async fn of(decide: impl FnOnce(&Desired)) -> Self {
        let server = Arc::new(Server::default());
        *server.version.lock().unwrap() = Some("2");
        let client = Arc::clone(&server).start().await;
        let desired = Desired::default();
        decide(&desired);
        let (leads, leader) = watch::channel(true);
        let writer = Writer::new(client, desired.clone(), leader);
        Self {
            server,
            desired,
            _leads: leads,
            task: tokio::spawn(writer.run()),
        }
    }

    fn version(&self) -> Option<&'static str> {
        *self.server.version.lock().unwrap()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn an_object_that_changed_since_the_decision_is_not_deleted_before_another_one() {
    // Decided upon an earlier version: somebody has taken the Service over since.
    let writing = Writing::of(|desired| desired.set(web(), Some(as_of("1")))).await;
    writing.server.wait_deletes(2).await;
    assert_eq!(writing.version(), Some("2"), "it is deleted");
    // The watch tells of the change, and it is to be deleted all the same.
    writing.desired.set(web(), Some(as_of("2")));
    let mut asked = 3;
    while writing.version().is_some() {
        writing.server.wait_deletes(asked).await;
        asked += 1;
    }
}

#[tokio::test]
async fn nothing_is_written_while_what_it_is_decided_upon_may_be_old() {
    let writing = Writing::of(|desired| {
        desired.hold(true);
        desired.set(web(), Some(as_of("1")));
    })
    .await;
    // It has its turn, and would begin.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    writing.desired.set(web(), Some(as_of("2")));
    writing.desired.hold(false);
    writing.server.wait_deletes(1).await;
    assert_eq!(writing.version(), None, "another version was asked for");
}

#[tokio::test]
async fn what_came_to_nothing_is_written_again_as_soon_as_all_was_read_anew() {
    let writing = Writing::of(|desired| desired.set(web(), Some(as_of("2")))).await;
    writing.server.wait_deletes(1).await;
    // Nothing that is read changes what is wanted.
    *writing.server.version.lock().unwrap() = Some("2");
    let again = async {
        // The answer to the first one may be under way still.
        while writing.version().is_some() {
            writing.desired.hold(true);
            writing.desired.hold(false);
            tokio::task::yield_now().await;
        }
    };
    timeout(queue::ECHO / 2, again)
        .await
        .expect("it waits for the watch");
}
