//! A client's request, answered by three servers on one thread, as `versus` measures it: in memory,
//! and on a disk beside servers that write and do nothing else.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use graft_benches::{
    Contender, Flavour, Workload,
    contenders::{Field, Network, Store},
};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round_trip");
    group.throughput(Throughput::Elements(1));
    for contender in field(Store::Memory, Network::Memory).graft() {
        for clients in [1, 64, 1024] {
            let id = BenchmarkId::new(contender.name(), clients);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|requests| measure(&*contender, clients, requests));
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("round_trip_on_redb");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    let on_disk = field(Store::Redb, Network::Memory);
    for contender in on_disk.graft().into_iter().chain(on_disk.others()) {
        for clients in [1, 64, 1024, 4096] {
            let id = BenchmarkId::new(contender.name(), clients);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|requests| measure(&*contender, clients, requests));
            });
        }
    }
    group.finish();
}

const fn field(store: Store, network: Network) -> Field {
    Field { store, network, filled: false }
}

/// The time of `requests` requests when `clients` clients send them.
fn measure(contender: &dyn Contender, clients: usize, requests: u64) -> Duration {
    // Fewer requests than clients would measure fewer clients.
    let operations = usize::try_from(requests).unwrap_or(usize::MAX).max(4 * clients);
    let workload = Workload { clients, operations, payload: 0 };
    let measured = contender.run(Flavour::Single, workload);
    let measured = measured.expect("a contender on an idle hub finishes");
    measured.wall.mul_f64(requests as f64 / operations as f64)
}
