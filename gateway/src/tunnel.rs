//! The tunnel protocol `clusterlink/1`, without sockets.
