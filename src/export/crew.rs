//! The readers of a run, which its exports share: whoever has the largest partition waiting reads next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::base::telemetry;

/// The seats of a run's readers. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Crew(Arc<Mutex<Seats>>);

#[derive(Debug)]
struct Seats {
    /// The numbers of those that nobody has, the lowest last.
    free: Vec<usize>,
    taken: usize,
    waiting: BinaryHeap<WaitingPartition>,
    /// How many have ever waited: who came first goes first, where both are as large.
    asked: u64,
}

/// A partition that waits to be read.
#[derive(Debug)]
struct WaitingPartition {
    size: u64,
    came: Reverse<u64>,
    told: oneshot::Sender<Seat>,
}

impl PartialEq for WaitingPartition {
    fn eq(&self, other: &Self) -> bool {
        (self.size, self.came) == (other.size, other.came)
    }
}

impl Eq for WaitingPartition {}

impl PartialOrd for WaitingPartition {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for WaitingPartition {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.size, self.came).cmp(&(other.size, other.came))
    }
}

/// The right to read one partition. Dropped, it goes to whoever waits.
#[derive(Debug)]
pub(crate) struct Seat {
    number: usize,
    crew: Crew,
    given_up: bool,
}

impl Crew {
    /// So many readers.
    pub(crate) fn new(readers: usize) -> Self {
        let free = (0..readers).rev().collect();
        Self(Arc::new(Mutex::new(Seats { free, taken: 0, waiting: BinaryHeap::new(), asked: 0 })))
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a seat, to read a partition of about `size` bytes. Whoever drops the receiver wants none any more.
    pub(crate) fn ask(&self, size: u64) -> oneshot::Receiver<Seat> {
        let (told, wanted) = oneshot::channel();
        let mut seats = self.seats();
        let came = Reverse(seats.asked);
        seats.asked = seats.asked.saturating_add(1);
        seats.waiting.push(WaitingPartition { size, came, told });
        drop(seats);
        self.seat_waiting();
        wanted
    }

    /// Gives free seats to those who wait.
    fn seat_waiting(&self) {
        loop {
            let mut seats = self.seats();
            let Some(number) = seats.free.pop() else { return };
            let Some(next) = seats.waiting.pop() else {
                seats.free.push(number);
                return;
            };
            seats.taken += 1;
            drop(seats);
            // Who has gone meanwhile drops the seat, which comes back here.
            let _ = next.told.send(Seat { number, crew: self.clone(), given_up: false });
        }
    }

    /// Readers at work.
    pub(crate) fn taken(&self) -> usize {
        self.seats().taken
    }

    fn tell(taken: usize) {
        telemetry::readers_active(u32::try_from(taken).unwrap_or(u32::MAX));
    }
}

impl Seat {
    /// The reader's number, from 0.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Says that a reader is at work here.
    pub(crate) fn begin(&self) {
        Crew::tell(self.crew.taken());
    }

    /// Takes the seat out of the run, where another one is taken; else it stays, and comes back.
    pub(crate) fn give_up(mut self) -> Result<usize, Self> {
        let left = {
            let mut seats = self.crew.seats();
            if seats.taken < 2 {
                None
            } else {
                seats.taken -= 1;
                Some(seats.taken)
            }
        };
        match left {
            None => Err(self),
            Some(left) => {
                self.given_up = true;
                Crew::tell(left);
                Ok(left)
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.given_up {
            return;
        }
        let taken = {
            let mut seats = self.crew.seats();
            seats.taken = seats.taken.saturating_sub(1);
            let place = seats.free.partition_point(|free| *free > self.number);
            seats.free.insert(place, self.number);
            seats.taken
        };
        Crew::tell(taken);
        self.crew.seat_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_goes_first_and_who_came_first_of_equals() {
        let crew = Crew::new(1);
        let mut first = crew.ask(0);
        let seat = first.try_recv().unwrap();
        let mut waiting: Vec<_> = [5, 9, 5, 1].into_iter().map(|size| (size, crew.ask(size))).collect();
        assert!(waiting.iter_mut().all(|(_, wanted)| wanted.try_recv().is_err()));
        drop(seat);
        let mut order = Vec::new();
        for _ in 0..4 {
            let at = waiting.iter_mut().position(|(_, wanted)| match wanted.try_recv() {
                Ok(seat) => {
                    assert_eq!(seat.number(), 0);
                    true
                }
                Err(_) => false,
            });
            order.push(waiting.remove(at.unwrap()).0);
        }
        assert_eq!(order, [9, 5, 5, 1]);
    }

    #[test]
    fn who_has_gone_is_passed_over() {
        let crew = Crew::new(1);
        let seat = crew.ask(1).try_recv().unwrap();
        drop(crew.ask(9));
        let mut stays = crew.ask(1);
        drop(seat);
        let seat = stays.try_recv().unwrap();
        // One that was told and has not looked gives it back too.
        drop(stays);
        let late = crew.ask(1);
        drop(seat);
        drop(late);
        assert_eq!((crew.taken(), crew.ask(1).try_recv().map(|seat| seat.number())), (0, Ok(0)));
    }

    #[test]
    fn all_seats_but_one_can_be_given_up() {
        let crew = Crew::new(3);
        let mut seats: Vec<Seat> = (0..3).map(|_| crew.ask(1).try_recv().unwrap()).collect();
        assert_eq!(seats.iter().map(Seat::number).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(seats.pop().unwrap().give_up().ok(), Some(2));
        assert_eq!(seats.pop().unwrap().give_up().ok(), Some(1));
        let last = seats.pop().unwrap().give_up().unwrap_err();
        drop(last);
        let again = crew.ask(1).try_recv().unwrap();
        assert!(crew.ask(1).try_recv().is_err());
        drop(again);
    }
}
