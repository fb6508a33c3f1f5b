//! Chooses how instructions of machines are run, and says so when it is the slow way.

use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::config::AcceleratorChoice;
use super::error::VmmError;
use super::identity::Accelerator;
use super::kvm_probe::{self, Finding};
use super::tsc;

/// How much longer than its budget the probe is waited for: a KVM that hangs never comes back.
const PATIENCE_FACTOR: u32 = 5;

/// The chosen way.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) accelerator: Accelerator,
    /// Why machines are slow, if they are.
    pub(super) warning: Option<String>,
    /// The rate of the time-stamp counter, which emulated machines must be told.
    pub(super) tsc_khz: Option<u64>,
}

/// Chooses by `choice`; the probe takes at most about `probe_budget`.
pub(super) async fn choose(
    choice: AcceleratorChoice,
    probe_budget: Duration,
) -> Result<Chosen, VmmError> {
    let complaint = match choice {
        AcceleratorChoice::Tcg => None,
        AcceleratorChoice::Auto | AcceleratorChoice::Kvm => {
            match complaint(&probe(probe_budget).await) {
                None => {
                    return Ok(Chosen {
                        accelerator: Accelerator::Kvm,
                        warning: None,
                        tsc_khz: None,
                    });
                }
                complaint => complaint,
            }
        }
    };
    if let (AcceleratorChoice::Kvm, Some(complaint)) = (choice, &complaint) {
        return Err(VmmError::Kvm {
            complaint: complaint.clone(),
        });
    }
    Ok(Chosen {
        accelerator: Accelerator::Tcg,
        warning: complaint.map(|complaint| {
            format!("machines are emulated (TCG), which is slow, because {complaint}")
        }),
        tsc_khz: Some(tsc::measure_khz().await?),
    })
}

/// Runs the probe in a thread of its own, which is left behind if KVM never answers.
async fn probe(budget: Duration) -> Finding {
    let (sender, receiver) = oneshot::channel();
    let spawned = thread::Builder::new()
        .name("kvm-probe".to_owned())
        .spawn(move || {
            // Nobody waits any more when the probe was given up.
            let _given_up = sender.send(kvm_probe::run(budget));
        });
    let complaint = match spawned {
        Err(error) => format!("the KVM probe could not start: {error}"),
        Ok(_detached) => match tokio::time::timeout(budget * PATIENCE_FACTOR, receiver).await {
            Ok(Ok(finding)) => return finding,
            Ok(Err(_)) => "the KVM probe broke off".to_owned(),
            Err(_) => format!(
                "/dev/kvm does not answer within {} ms",
                (budget * PATIENCE_FACTOR).as_millis()
            ),
        },
    };
    Finding::Unusable { complaint }
}

/// Why KVM is not used, if it is not.
fn complaint(finding: &Finding) -> Option<String> {
    match finding {
        Finding::Runs { .. } => None,
        Finding::Emulates { iterations, took } => Some(format!(
            "/dev/kvm of this host does not run instructions on the processor: {iterations} \
             iterations of a two-instruction loop took {} ms, a processor needs less than 1 ms",
            took.as_millis()
        )),
        Finding::Unusable { complaint } => Some(complaint.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_millis(200);

    #[test]
    fn a_warning_names_the_measured_time() {
        let finding = Finding::Emulates {
            iterations: 90_000,
            took: Duration::from_millis(203),
        };
        let complaint = complaint(&finding).unwrap();
        assert!(complaint.contains("90000 iterations"), "{complaint}");
        assert!(complaint.contains("203 ms"), "{complaint}");
    }

    #[tokio::test]
    async fn emulation_by_choice_is_no_reason_for_a_warning() {
        let chosen = choose(AcceleratorChoice::Tcg, BUDGET).await.unwrap();
        assert_eq!(chosen.accelerator, Accelerator::Tcg);
        assert_eq!(chosen.warning, None);
        assert!(chosen.tsc_khz.unwrap() > 100_000);
    }

    #[tokio::test]
    async fn the_automatic_choice_agrees_with_the_explicit_one() {
        let automatic = choose(AcceleratorChoice::Auto, BUDGET).await.unwrap();
        match choose(AcceleratorChoice::Kvm, BUDGET).await {
            Ok(chosen) => assert_eq!(automatic.accelerator, chosen.accelerator),
            Err(error) => {
                assert_eq!(automatic.accelerator, Accelerator::Tcg, "{error}");
                assert!(automatic.warning.is_some());
            }
        }
    }
}
