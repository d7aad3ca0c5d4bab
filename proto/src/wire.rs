//! The messages and the service, as generated from `wire/*.proto`.
#![expect(clippy::all, unused_qualifications, reason = "the code is generated")]

tonic::include_proto!("clusterlink.push.v1");
