//! A library and the one thread that calls it.
//!
//! `C_Initialize` counts for the whole process and modules crash when called from
//! several threads (SoftHSM 2.6, issue 688), so every provider of a library shares it.
//! A call into a module cannot be interrupted; its caller stops waiting instead.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use atrest::kms::{Deadline, KmsError, KmsErrorKind};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11 as Library};
use cryptoki::error::{Error, RvError};

use super::answer;
use crate::environment::Environment;
use crate::fail::{fail, misconfigured};

type Job = Box<dyn FnOnce(Result<&Library, KmsError>) + Send>;

/// A library that may be loaded. Never unloaded: others in the process may use it.
#[derive(Debug)]
pub(super) struct Module {
    path: PathBuf,
    jobs: Mutex<Option<Sender<Job>>>,
}

static MODULES: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

/// The library that the variable `ATREST_PKCS11_MODULE` or, without it, the URI names.
pub(super) fn find(path: Option<&str>, environment: &Environment) -> Result<Arc<Module>, KmsError> {
    let path = match (environment.plain("ATREST_PKCS11_MODULE"), path) {
        (Some(path), _) => path,
        (None, Some(path)) => path.to_owned(),
        (None, None) => {
            return Err(misconfigured(
                "expected a library in module-path or ATREST_PKCS11_MODULE, found none",
            ));
        }
    };
    let path = checked(Path::new(&path))?;
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let module = modules
        .entry(path.clone())
        .or_insert_with(|| Arc::new(Module { path, jobs: Mutex::new(None) }));
    Ok(module.clone())
}

/// The one name of a library behind symbolic links. Refuses one that another user could have
/// put there.
fn checked(path: &Path) -> Result<PathBuf, KmsError> {
    if !path.is_absolute() {
        return Err(misconfigured("expected an absolute module-path"));
    }
    let shown = path.display();
    let cannot =
        |source| misconfigured(format!("the library {shown} cannot be read")).with_source(source);
    let real = path.canonicalize().map_err(cannot)?;
    let metadata = real.metadata().map_err(cannot)?;
    // The owner of a process's own directory is its effective user.
    let user = std::fs::metadata("/proc/self").map_or(0, |metadata| metadata.uid());
    let foreign = metadata.uid() != 0 && metadata.uid() != user;
    if !metadata.is_file() || foreign || metadata.mode() & 0o022 != 0 {
        return Err(misconfigured(format!(
            "expected {shown} to be a file that only root or this user may write"
        )));
    }
    Ok(real)
}

impl Module {
    /// Runs `work` on the library's thread and waits for it until the deadline.
    pub(super) fn run<T: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce(&Library) -> Result<T, KmsError> + Send + 'static,
    ) -> Result<T, KmsError> {
        let (send, receive) = mpsc::sync_channel(1);
        self.submit(Box::new(move |library| {
            // Behind a call that hung, nobody waits any more.
            if !deadline.remaining().is_zero() {
                // OK because the caller may have stopped waiting.
                let _ = send.send(library.and_then(work));
            }
        }))?;
        let late = |what| fail(KmsErrorKind::Unreachable, what);
        match receive.recv_timeout(deadline.remaining()) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(late("no answer of the module in time")),
            Err(RecvTimeoutError::Disconnected) => Err(late("the module's thread ended")),
        }
    }

    fn submit(&self, job: Job) -> Result<(), KmsError> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match &*jobs {
            Some(sender) => match sender.send(job) {
                Ok(()) => return Ok(()),
                Err(returned) => returned.0,
            },
            None => job,
        };
        let (sender, receiver) = mpsc::channel::<Job>();
        let path = self.path.clone();
        let thread = std::thread::Builder::new().name("atrest-pkcs11".to_owned());
        let started = thread.spawn(move || {
            let mut library = None;
            for job in receiver {
                if library.is_none() {
                    match load(&path) {
                        Ok(loaded) => library = Some(loaded),
                        Err(error) => {
                            job(Err(error));
                            continue;
                        }
                    }
                }
                if let Some(library) = &library {
                    job(Ok(library));
                }
            }
        });
        let failed = |_| fail(KmsErrorKind::Unreachable, "no thread for the module");
        started.map_err(failed)?;
        // OK because the receiver is alive: its thread waits.
        let _ = sender.send(job);
        *jobs = Some(sender);
        Ok(())
    }
}

fn load(path: &Path) -> Result<Library, KmsError> {
    let library = Library::new(path).map_err(answer::error)?;
    initialize(&library)?;
    Ok(library)
}

/// Initializes the library for this process, if nobody has. It is never finalized here: that
/// would end the sessions of others in the process.
pub(super) fn initialize(library: &Library) -> Result<(), KmsError> {
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Another part of the process uses the same library.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        Err(error) => Err(answer::error(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A call that hangs does not hold its caller, and those behind it end too.
    #[test]
    fn a_hanging_call_ends_for_its_caller() {
        let path = "/usr/lib/softhsm/libsofthsm2.so";
        if !Path::new(path).exists() {
            return; // The integration tests say so loudly.
        }
        let none: [(&str, &str); 0] = [];
        let module = find(Some(path), &Environment::fixed(none)).unwrap_or_else(|e| panic!("{e}"));
        let soon = || Deadline::after(Duration::from_millis(200));
        let hang = |_: &Library| {
            std::thread::sleep(Duration::from_secs(30));
            Ok(())
        };
        let start = Instant::now();
        for _ in 0..2 {
            let Err(error) = module.run(soon(), hang) else { panic!("an answer") };
            assert_eq!(error.kind(), KmsErrorKind::Unreachable, "{error}");
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    /// Two threads in one library could crash it.
    #[test]
    fn a_library_of_two_names_has_one_thread() {
        let dir = tempfile::tempdir().expect("a directory");
        let [file, link] = ["library.so", "link.so"].map(|name| dir.path().join(name));
        std::fs::write(&file, "").expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, mode).expect("a mode");
        std::os::unix::fs::symlink("library.so", &link).expect("a link");
        let none: [(&str, &str); 0] = [];
        let [one, other] = [&file, &link]
            .map(|path| find(path.to_str(), &Environment::fixed(none)).expect("a library"));
        assert!(Arc::ptr_eq(&one, &other));
    }
}
