//! The demo: three peers share a web server, and everything that is claimed is shown.
//!
//! It exits with success only if every step did what it said.
#![forbid(unsafe_code)]

mod acts;
mod documents;
mod measure;
mod stage;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use clusterlink_tests::Scene;

use acts::Acts;
use stage::Stage;

#[derive(Debug, Parser)]
#[command(about = "Three peers share a web server")]
struct Arguments {
    /// Leaves everything up at the end, with the commands to look around, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let start = Instant::now();
    let scene = match Scene::new("demo") {
        Ok(scene) => scene,
        Err(error) => {
            eprintln!("the demo cannot be set up: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let result = play(&scene, &arguments);
    if let Err(error) = result {
        eprintln!("\nThe demo failed: {error:?}\n{}", scene.explain());
        return ExitCode::FAILURE;
    }
    // To leave something behind is a failure too.
    match scene.end() {
        Ok(()) => {
            println!(
                "\nEvery step did what it said, in {:.0} s.",
                start.elapsed().as_secs_f32()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demo failed at its end: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn play(scene: &Scene, arguments: &Arguments) -> Result<()> {
    let stage = Stage::new()?;
    let mut acts = Acts::begin(scene, &stage)?;
    acts.default_deny()?;
    acts.allow_on_both_sides()?;
    acts.round_robin()?;
    acts.failover()?;
    acts.cut_a_live_connection()?;
    acts.look_inside()?;
    measure::beside_direct_tcp(&acts)?;
    if arguments.keep {
        println!("\nEverything stays up until Ctrl-C. To look around, in another terminal:");
        for (who, place) in acts.places() {
            println!("  {who:<14} {}", place.enter_line());
        }
        loop {
            std::thread::park();
        }
    }
    acts.stop()
}
