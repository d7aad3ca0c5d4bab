//! The frame around every story.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::listing::Listing;
use crate::scene::Scene;

/// Tells a story in a scene of its own, and sees that nothing of the scene is left afterwards.
///
/// On failure the logs and the ways to enter the scene are printed; with `CLUSTERLINK_KEEP=1` the
/// scene is then left up until the test is interrupted.
pub fn story(name: &str, tell: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    let start = Instant::now();
    let scene = Scene::new(name).with_context(|| format!("cannot set the scene of {name}"))?;
    let id = scene.id().to_owned();
    let result = tell(&scene);
    if let Err(error) = &result {
        eprintln!("{name} failed: {error:?}\n{}", scene.explain());
        if std::env::var_os("CLUSTERLINK_KEEP").is_some_and(|value| value == "1") {
            eprintln!("the scene is kept until this process is interrupted");
            loop {
                std::thread::park();
            }
        }
    }
    drop(scene);
    result?;
    Listing::of(&id)?
        .assert_empty()
        .with_context(|| format!("after {name}"))?;
    eprintln!("{name}: {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}
