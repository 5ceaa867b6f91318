//! Clients that do anything in any order: what is counted is what is there, and nobody waits in vain.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::Wake,
};

use super::*;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

type Waits<'a> = Pin<Box<dyn Future<Output = usize> + 'a>>;

struct Client<'a> {
    share: &'a Arc<Share>,
    waits: Option<(Waits<'a>, Arc<Flag>)>,
}

impl Client<'_> {
    /// Goes on waiting, and says whether it was let in.
    fn poll(&mut self) -> bool {
        let Some((waits, flag)) = &mut self.waits else { return false };
        flag.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(flag));
        let is_in = waits.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if is_in {
            self.waits = None;
        }
        is_in
    }

    fn is_woken(&self) -> bool {
        self.waits.as_ref().is_some_and(|(_, flag)| flag.0.load(Ordering::SeqCst))
    }
}

/// Checks that what is counted is what is there.
fn check(intake: &Intake, clients: &[Client<'_>]) {
    let state = intake.lock();
    let (mut all, mut much, mut busy, mut modest, mut waiting) = (0, 0, 0, 0, 0);
    for client in clients {
        let open = client.share.lock();
        all += open.bytes;
        much += if open.asks_for_much { open.bytes } else { 0 };
        busy += usize::from(open.requests > 0 || open.waits);
        modest += usize::from(open.requests > 0 && !open.asks_for_much);
        waiting += usize::from(open.waits);
        assert_eq!(open.requests == 0, open.bytes == 0);
        assert_eq!(open.waits, client.waits.is_some());
        assert!(open.bytes <= intake.share);
    }
    let counted = state.waiting.iter().map(BTreeMap::len).sum::<usize>();
    let State { all: a, much: m, busy: b, modest: o, .. } = &*state;
    assert_eq!((all, much, busy, modest, waiting), (*a, *m, *b, *o, counted));
    assert!(all <= intake.most + intake.share, "one comes in alone, whatever others have in");
    assert!(all - much <= intake.most_of_modest.max(intake.share / LITTLE));
}

/// Has all go on that were told to, until none is.
fn settle(intake: &Intake, clients: &mut [Client<'_>], random: &mut fastrand::Rng) {
    loop {
        let woken: Vec<_> = (0..clients.len()).filter(|i| clients[*i].is_woken()).collect();
        let Some(chosen) = random.choice(woken) else { break };
        clients[chosen].poll();
        check(intake, clients);
    }
    let state = intake.lock();
    let number = |waiting: &BTreeMap<_, Arc<Share>>| Some(waiting.first_key_value()?.1.number);
    let heads = state.waiting.each_ref().map(number);
    assert!(state.all > 0 || heads == [None, None], "somebody waits for nothing");
    drop(state);
    for head in heads.into_iter().flatten() {
        let client = clients.iter_mut().find(|client| client.share.number == head).unwrap();
        // It would be told so by nothing but this.
        client.share.turn.notify_one();
        assert!(!client.poll(), "somebody waits who could come in");
    }
}

async fn run(seed: u64) {
    let random = &mut fastrand::Rng::with_seed(seed);
    let all = random.choice([64, 660, 1280]).unwrap();
    let one = random.choice([64, 640, all]).unwrap().min(all);
    let [contended, yielding] = [[32, 320, 640], [0, 16, 64]].map(|of| random.choice(of).unwrap());
    let (intake, counter) = (intake(all, one, contended, yielding), Counter::default());
    let shares: Vec<_> = (0..9).map(|_| intake.share()).collect();
    let asks: Vec<_> = [1, 3, 12, 60, 300]
        .into_iter()
        .flat_map(|count| [1, 9, 100].map(|kib| vec![large(kib)[0].clone(); count]))
        .collect();
    let mut clients: Vec<_> = shares.iter().map(|share| Client { share, waits: None }).collect();
    // In half of the runs no time passes, so what can come in only because it did is nothing to be told.
    let passes = seed.is_multiple_of(2);
    for _ in 0..400 {
        let chosen = random.usize(..clients.len());
        let client = &mut clients[chosen];
        let has_in = usize::try_from(client.share.lock().requests).unwrap();
        let mut has_passed = false;
        match random.u8(..20) {
            0..9 if client.waits.is_none() => {
                let requests = random.choice(&asks).unwrap();
                let waits = Box::pin(intake.let_in(client.share, requests, &counter));
                client.waits = Some((waits, Arc::new(Flag(AtomicBool::new(false)))));
                client.poll();
            }
            9..14 if has_in > 0 => {
                let answered = random.usize(1..=has_in);
                let refused = if random.bool() { 0 } else { random.usize(0..=answered) };
                intake.answered(client.share, answered, refused);
            }
            // Nobody asked for these.
            14 => intake.answered(client.share, has_in + 1, 0),
            15 => intake.forget(client.share),
            16 => client.waits = None,
            17 => {
                client.waits = None;
                intake.forget(client.share);
            }
            18..20 if passes => {
                has_passed = true;
                let millis = random.choice([1, 20, 99, 101, 499, 501, 3000]).unwrap();
                tokio::time::advance(Duration::from_millis(millis)).await;
            }
            _ => {}
        }
        check(&intake, &clients);
        if !has_passed && !passes {
            settle(&intake, &mut clients, random);
        } else {
            while let Some(client) = clients.iter_mut().find(|client| client.is_woken()) {
                client.poll();
            }
        }
    }
    loop {
        let open: Vec<_> = shares.iter().filter(|share| !share.is_free()).collect();
        let Some(share) = random.choice(open) else { break };
        let has_in = usize::try_from(share.lock().requests).unwrap();
        intake.answered(share, random.usize(1..=has_in), 0);
        while let Some(client) = clients.iter_mut().find(|client| client.is_woken()) {
            client.poll();
        }
        check(&intake, &clients);
    }
    assert!(clients.iter().all(|client| client.waits.is_none()), "somebody waits for ever");
    assert!(is_empty(&intake));
}

#[tokio::test(start_paused = true)]
async fn whatever_clients_do_all_is_counted_and_nobody_waits_in_vain() {
    for seed in 0..200 {
        println!("seed {seed}");
        run(seed).await;
    }
}
