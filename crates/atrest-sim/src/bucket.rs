//! Two processes that write one keyring in a bucket whose answers get lost.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use atrest::kms::Kms;
use atrest::{ErrorKind, Expect, FileKind, Header, Keyring, Options};
use atrest_object_store::ObjectStoreKeyringStorage;
use atrest_testkit::{ManualClock, ScriptedKms};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;

use crate::model::MARKER;
use crate::rng::Rng;
use crate::site::told;
use crate::{Figures, Problem};

/// Processes that write.
const WRITERS: usize = 2;

/// What one of them does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Seal,
    Rotate,
    RotateStore,
    AddSlot(u8),
    RemoveSlot,
    Rewrap,
    Reload,
    Reopen,
    Outage(u8),
}

fn history(seed: u64) -> (u64, Vec<(usize, Step)>) {
    let mut rng = Rng::new(seed, 1);
    // One request in so many goes wrong; none for a third of the seeds.
    let trouble = rng.pick(&[0, 4, 12]);
    let len = 4 + rng.below(12);
    let step = |rng: &mut Rng| match rng.below(16) {
        0..4 => Step::Seal,
        4..7 => Step::Rotate,
        7..9 => Step::RotateStore,
        9..11 => Step::AddSlot(rng.below(3) as u8),
        11 => Step::RemoveSlot,
        12 => Step::Rewrap,
        13 => Step::Reload,
        14 => Step::Reopen,
        _ => Step::Outage(1 + rng.below(8) as u8),
    };
    let steps = (0..len).map(|_| (rng.below(WRITERS as u64) as usize, step(&mut rng)));
    (trouble, steps.collect())
}

pub(crate) fn describe(seed: u64) -> Vec<String> {
    let (trouble, steps) = history(seed);
    let steps = steps.iter().map(|(who, step)| format!("writer {who}: {step:?}"));
    [format!("a bucket, one request in {trouble} goes wrong")].into_iter().chain(steps).collect()
}

pub(crate) fn len(seed: u64) -> usize {
    history(seed).1.len()
}

struct World {
    bucket: Arc<InMemory>,
    trouble: Arc<Mutex<Trouble>>,
    kms: Vec<Arc<dyn Kms>>,
    clock: Arc<ManualClock>,
    /// Headers and ciphertext of 100 bytes each.
    sealed: Vec<(Header, Vec<u8>)>,
    /// The newest generation that anybody was told of.
    generation: u64,
    figures: Figures,
}

pub(crate) fn run(seed: u64, only: Option<&[usize]>) -> Result<Figures, Problem> {
    let (trouble, steps) = history(seed);
    let mut world = World {
        bucket: Arc::default(),
        trouble: Arc::new(Mutex::new(Trouble::new(seed))),
        kms: (0..3).map(|at| ScriptedKms::new(at) as Arc<dyn Kms>).collect(),
        clock: ManualClock::new(),
        sealed: Vec::new(),
        generation: 1,
        figures: Figures { histories: 1, ..Figures::default() },
    };
    let first = Keyring::create(world.storage()?, world.kms[0].clone(), world.options());
    drop(first.map_err(|error| told(&error))?);
    let mut writers: [Option<Keyring>; WRITERS] = Default::default();
    for (number, (who, step)) in steps.into_iter().enumerate() {
        if only.is_some_and(|only| !only.contains(&number)) {
            continue;
        }
        world.trouble().one_in = trouble;
        let outcome = world.act(&mut writers[who], step);
        world.trouble().one_in = 0;
        world.figures.steps += 1;
        let told_of = writers[who].as_ref().map(|keyring| keyring.anchor().generation);
        let fail = |problem| format!("step {number}, writer {who}, {step:?}: {problem}");
        match outcome {
            Ok(()) => world.generation = world.generation.max(told_of.unwrap_or(0)),
            Err(error) => {
                world.figures.errors += 1;
                let excused = trouble != 0
                    || matches!(error.kind(), ErrorKind::KeyringConflict)
                    || is_forgotten(&error)
                    || (matches!(step, Step::AddSlot(_) | Step::RemoveSlot)
                        && error.kind() == ErrorKind::InvalidArgument);
                if !excused {
                    return Err(fail(format!("failed on a good bucket: {}", told(&error))));
                }
                if error.kind() == ErrorKind::Poisoned || is_forgotten(&error) {
                    writers[who] = None;
                }
            }
        }
        world.check().map_err(fail)?;
    }
    drop(writers);
    // What was under way arrives at last.
    let late = std::mem::take(&mut world.trouble().late);
    for (at, data, options) in late {
        drop(futures(world.bucket.put_opts(&at, data, options)));
    }
    world.check().map_err(|problem| format!("when late requests arrived: {problem}"))?;
    let contents = futures(async {
        let metas: Vec<_> = world.bucket.list(None).try_collect().await?;
        let mut all = Vec::new();
        for meta in metas {
            all.extend_from_slice(&world.bucket.get(&meta.location).await?.bytes().await?);
        }
        Ok::<_, Error>(all)
    });
    let contents = contents.map_err(|error| error.to_string())?;
    if contents.windows(MARKER.len()).any(|at| at == MARKER) {
        return Err("plaintext stands in the bucket".into());
    }
    let requests = world.trouble().requests;
    world.figures.requests = requests;
    Ok(world.figures)
}

/// A process forgets the key of a slot that it removes; another may add one with that key.
fn is_forgotten(error: &atrest::Error) -> bool {
    error.kind() == ErrorKind::Kms(atrest::error::KmsErrorKind::Misconfigured)
}

/// The store in memory never waits.
fn futures<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}

impl World {
    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn options(&self) -> Options {
        let mut options = Options::default();
        options.background = false;
        options.clock = self.clock.clone();
        options
    }

    fn storage(&self) -> Result<ObjectStoreKeyringStorage, Problem> {
        let faulty = Faulty { inner: self.bucket.clone(), trouble: self.trouble.clone() };
        ObjectStoreKeyringStorage::new(Arc::new(faulty), &Path::from("db")).map_err(|e| told(&e))
    }

    fn open(&self) -> atrest::Result<Keyring> {
        let storage =
            self.storage().map_err(|what| atrest::Error::new(ErrorKind::InvalidArgument, what))?;
        Keyring::open(storage, self.kms.clone(), self.options())
    }

    fn act(&mut self, writer: &mut Option<Keyring>, step: Step) -> atrest::Result<()> {
        if matches!(step, Step::Reopen) {
            *writer = None;
        }
        let keyring = match writer {
            Some(keyring) => keyring,
            None => writer.insert(self.open()?),
        };
        let slots = keyring.slots().list();
        match step {
            Step::Seal => {
                let mut encryptor = keyring.encryptor(FileKind::Table)?;
                let header = Header::parse(encryptor.header())?;
                let mut plaintext = MARKER.repeat(8);
                plaintext.truncate(100);
                let mut body = Vec::new();
                encryptor.append(&plaintext, &mut body)?;
                encryptor.finish(&mut body)?;
                self.sealed.push((header, body));
                Ok(())
            }
            Step::Rotate => keyring.keys().rotate().map(drop),
            Step::RotateStore => keyring.keys().rotate_store_key().map(drop),
            Step::AddSlot(at) => {
                let name = format!("slot{}", self.figures.steps);
                keyring.slots().add(&name, self.kms[usize::from(at)].clone())
            }
            Step::RemoveSlot if slots.len() > 1 => keyring.slots().remove(&slots[0].name),
            Step::Rewrap => keyring.slots().rewrap(None).map(drop),
            Step::Reload => keyring.reload(),
            Step::Outage(requests) => {
                self.trouble().away = requests.into();
                let ended = keyring.keys().rotate().map(drop);
                self.trouble().away = 0;
                match ended {
                    // That is what an outage does.
                    Err(error) if matches!(error.kind(), ErrorKind::Io(_)) => Ok(()),
                    Err(error) if error.kind() == ErrorKind::Poisoned => {
                        *writer = None;
                        Ok(())
                    }
                    other => other,
                }
            }
            _ => Ok(()),
        }
    }

    /// Whoever comes now opens the keyring and reads all that was ever encrypted.
    fn check(&mut self) -> Result<(), Problem> {
        self.figures.images += 1;
        let storage = ObjectStoreKeyringStorage::new(self.bucket.clone(), &Path::from("db"));
        let storage = storage.map_err(|error| told(&error))?;
        let keyring = Keyring::open_read_only(storage, self.kms.clone(), self.options());
        let keyring = keyring.map_err(|error| format!("it does not open: {}", told(&error)))?;
        let found = keyring.anchor().generation;
        if found < self.generation {
            return Err(format!("generation {} was told of, {found} is there", self.generation));
        }
        for (header, body) in &self.sealed {
            let decryptor = keyring.decryptor(header, &Expect::default());
            let decryptor =
                decryptor.map_err(|error| format!("a file is lost: {}", told(&error)))?;
            let mut plain = body.clone();
            decryptor.decrypt_in_place(0, &mut plain).map_err(|error| told(&error))?;
            if !plain.starts_with(MARKER) {
                return Err("a file reads otherwise".into());
            }
        }
        Ok(())
    }
}

/// What goes wrong between the processes and the bucket.
struct Trouble {
    rng: Rng,
    /// One request in so many; 0 for none.
    one_in: u64,
    /// So many requests get no answer.
    away: u64,
    /// Puts that arrive some time.
    late: Vec<(Path, PutPayload, PutOptions)>,
    /// A list as it was.
    list: Vec<ObjectMeta>,
    requests: u64,
}

impl Trouble {
    fn new(seed: u64) -> Self {
        let (rng, late, list) = (Rng::new(seed, 3), Vec::new(), Vec::new());
        Self { rng, one_in: 0, away: 0, late, list, requests: 0 }
    }

    /// How a request fares: 0 is well.
    fn fate(&mut self) -> u64 {
        self.requests += 1;
        if self.away > 0 {
            self.away -= 1;
            return 2;
        }
        if self.one_in > 0 && self.rng.once_in(self.one_in) { 1 + self.rng.below(5) } else { 0 }
    }
}

#[derive(Clone)]
struct Faulty {
    inner: Arc<InMemory>,
    trouble: Arc<Mutex<Trouble>>,
}

impl Faulty {
    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fate(&self) -> u64 {
        let (fate, late) = {
            let mut trouble = self.trouble();
            let fate = trouble.fate();
            let arrives = !trouble.late.is_empty() && trouble.rng.once_in(2);
            (fate, arrives.then(|| trouble.late.remove(0)))
        };
        if let Some((at, data, options)) = late {
            drop(self.inner.put_opts(&at, data, options).await);
        }
        fate
    }
}

fn no_answer() -> Error {
    Error::Generic { store: "Faulty", source: "no answer".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match self.fate().await {
            0 => self.inner.put_opts(at, data, opts).await,
            // Carried out, and the answer lost.
            1 => {
                drop(self.inner.put_opts(at, data, opts).await);
                Err(no_answer())
            }
            // Lost, or throttled.
            2 | 3 => Err(no_answer()),
            // On its way for long.
            4 => {
                self.trouble().late.push((at.clone(), data, opts));
                Err(no_answer())
            }
            // Sent twice by the client, which hears the second answer.
            _ => {
                drop(self.inner.put_opts(at, data.clone(), opts.clone()).await);
                self.inner.put_opts(at, data, opts).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        match self.fate().await {
            0 | 4 | 5 => self.inner.get_opts(at, options).await,
            _ => Err(no_answer()),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let done = stream::once(async move {
            match this.fate().await {
                0 | 4 | 5 => this.inner.delete_stream(locations),
                1 => {
                    let gone: Vec<_> = this.inner.delete_stream(locations).collect().await;
                    drop(gone);
                    stream::once(async { Err(no_answer()) }).boxed()
                }
                _ => stream::once(async { Err(no_answer()) }).boxed(),
            }
        });
        done.flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let listed = stream::once(async move {
            let metas = match this.fate().await {
                1 | 2 => return stream::once(async { Err(no_answer()) }).boxed(),
                // As it was at the list before.
                3 | 4 => std::mem::take(&mut this.trouble().list),
                _ => match this.inner.list(prefix.as_ref()).try_collect().await {
                    Ok(metas) => metas,
                    Err(error) => return stream::once(async { Err(error) }).boxed(),
                },
            };
            this.trouble().list.clone_from(&metas);
            stream::iter(metas.into_iter().map(Ok)).boxed()
        });
        listed.flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}
