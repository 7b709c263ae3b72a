//! Receiving from a socket: CPU time of the reader for bytes that come in the server's pieces, woken for whatever has
//! come, or only for much of it.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use outhaul::bench::{READ_BUFFER_BYTES, READ_LOW_WATER_BYTES, wake_at};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::thread_time;

const BYTES: usize = 64 << 20;
/// PostgreSQL's send buffer (`PQ_SEND_BUFFER_SIZE`, pqcomm.c).
const PIECE: usize = 8192;

pub(crate) fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("receive");
    group.throughput(Throughput::Bytes(u64::try_from(BYTES).unwrap()));
    for (name, mark) in [("woken at once", 1), ("woken at the low water mark", READ_LOW_WATER_BYTES)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| runtime.block_on(receive(mark))).sum());
        });
    }
    group.finish();
}

async fn receive(mark: usize) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sender = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        for _ in 0..BYTES / PIECE {
            socket.write_all(&[7; PIECE]).unwrap();
        }
    });
    let mut socket = TcpStream::connect(address).await.unwrap();
    wake_at(socket.as_fd(), mark).unwrap();
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let began = thread_time();
    let mut received = 0;
    while received < BYTES {
        received += socket.read(&mut buffer).await.unwrap();
    }
    let spent = thread_time().saturating_sub(began);
    sender.join().unwrap();
    spent
}
