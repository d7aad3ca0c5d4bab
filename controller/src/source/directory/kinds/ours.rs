//! The schemas of our own kinds, which are those of their definitions.

use serde_json::Value as Json;

/// The schema in the definition of `kind`, without the status, which is not a manifest's to say.
pub(super) fn schema(kind: &str) -> Json {
    let definition = clusterlink_crds::definitions()
        .into_iter()
        .find(|definition| definition.spec.names.kind == kind)
        .expect("each of our kinds has a definition");
    let definition =
        serde_json::to_value(definition).expect("a definition is plain data, which JSON expresses");
    let mut schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.remove("status");
    }
    schema
}
