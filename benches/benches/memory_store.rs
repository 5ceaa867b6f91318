//! Appends to the store in memory, a batch a write.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use futures::executor::block_on;
use graft_benches::samples;
use graft_core::{LogStore, StoreError, Write};
use graft_storage::MemoryStore;

/// How many writes one store takes, so that its log stays short.
const WRITES: u64 = 64;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory_store_append");
    for batch in [1, 64, 1024] {
        group.throughput(Throughput::Elements(batch * WRITES));
        group.bench_with_input(BenchmarkId::from_parameter(batch), &batch, |bencher, batch| {
            bencher.iter_batched(
                || (newborn(), writes(*batch)),
                |(store, writes)| {
                    // Given back, so that dropping the log is not measured.
                    append(&store, writes)
                        .expect("a store in memory fails only where it is told to");
                    store
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn newborn() -> MemoryStore {
    let store = MemoryStore::new();
    block_on(store.create(&samples::identity("server1"))).expect("the store is new");
    store
}

fn writes(batch: u64) -> Vec<Write> {
    (0..WRITES).map(|write| Write::Append(samples::entries(1 + write * batch, batch))).collect()
}

/// Each write waits for the one before; the buffer that comes back is used again.
fn append(store: &MemoryStore, writes: Vec<Write>) -> Result<(), StoreError> {
    let mut buffer = Vec::new();
    for write in writes {
        buffer.clear();
        buffer.push(write);
        buffer = block_on(store.write(buffer))?;
    }
    Ok(())
}
