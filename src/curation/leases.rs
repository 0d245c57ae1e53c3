//! Leases on unjudged faces, so that two clients do not get the same ones.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::request::ClientId;

/// A client of a person.
pub type Holder = (String, ClientId);

/// Which client has which faces. Faces are named by their keys in the index.
#[derive(Debug, Default)]
pub struct Leases {
    clients: HashMap<Holder, HeldFaces>,
    holders: HashMap<i64, Holder>,
}

#[derive(Debug)]
struct HeldFaces {
    /// Oldest first.
    faces: VecDeque<i64>,
    renewed: Instant,
}

impl Leases {
    /// A client that is silent for so long loses its leases.
    pub const SILENCE: Duration = Duration::from_secs(60);
    /// Faces of one client. The oldest leases end when there are more.
    const MAX_FACES: usize = 2000;
    /// The clients that were silent for longest lose their leases when there are more.
    const MAX_CLIENTS: usize = 1000;

    /// The client is alive.
    pub fn renew(&mut self, holder: &Holder) {
        if let Some(held) = self.clients.get_mut(holder) {
            held.renewed = Instant::now();
        }
    }

    /// Leases a face. The caller has checked that no other client has it.
    pub fn take(&mut self, holder: &Holder, face: i64) {
        if self.holders.get(&face) == Some(holder) {
            return;
        }
        self.end(face);
        let faces = || HeldFaces { faces: VecDeque::new(), renewed: Instant::now() };
        let held = self.clients.entry(holder.clone()).or_insert_with(faces);
        held.faces.push_back(face);
        let oldest = if held.faces.len() > Self::MAX_FACES { held.faces.pop_front() } else { None };
        self.holders.insert(face, holder.clone());
        if let Some(oldest) = oldest {
            self.holders.remove(&oldest);
        }
        if self.clients.len() > Self::MAX_CLIENTS
            && let Some(silent) =
                self.clients.iter().min_by_key(|(_, held)| held.renewed).map(|(holder, _)| holder.clone())
        {
            self.close(&silent);
        }
    }

    /// The faces that other clients have.
    pub fn of_others(&mut self, holder: &Holder) -> Vec<i64> {
        let silent = |held: &HeldFaces| held.renewed.elapsed() >= Self::SILENCE;
        let ended: Vec<Holder> =
            self.clients.iter().filter(|(_, held)| silent(held)).map(|(holder, _)| holder.clone()).collect();
        ended.iter().for_each(|holder| self.close(holder));
        self.holders.iter().filter(|(_, other)| *other != holder).map(|(face, _)| *face).collect()
    }

    /// The faces that any client has.
    pub fn all(&self) -> impl Iterator<Item = i64> + '_ {
        self.holders.keys().copied()
    }

    /// Ends all leases of a client.
    pub fn close(&mut self, holder: &Holder) {
        if let Some(held) = self.clients.remove(holder) {
            held.faces.iter().for_each(|face| drop(self.holders.remove(face)));
        }
    }

    fn end(&mut self, face: i64) {
        if let Some(holder) = self.holders.remove(&face)
            && let Some(held) = self.clients.get_mut(&holder)
        {
            held.faces.retain(|held| *held != face);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str) -> Holder {
        ("ada".into(), name.parse().unwrap())
    }

    fn others(leases: &mut Leases, name: &str) -> Vec<i64> {
        let mut faces = leases.of_others(&holder(name));
        faces.sort_unstable();
        faces
    }

    #[tokio::test(start_paused = true)]
    async fn leases_end_after_silence_and_when_the_client_closes() {
        let mut leases = Leases::default();
        [1, 2].iter().for_each(|face| leases.take(&holder("a"), *face));
        leases.take(&holder("b"), 3);
        assert_eq!((others(&mut leases, "a"), others(&mut leases, "b")), (vec![3], vec![1, 2]));
        tokio::time::advance(Leases::SILENCE / 2).await;
        leases.renew(&holder("a"));
        tokio::time::advance(Leases::SILENCE / 2).await;
        assert_eq!((others(&mut leases, "a"), others(&mut leases, "b")), (vec![], vec![1, 2]));
        leases.close(&holder("a"));
        assert_eq!(others(&mut leases, "b"), [] as [i64; 0]);
        // Another person's client of the same name is another one.
        leases.take(&holder("a"), 5);
        assert_eq!(leases.of_others(&("grace".into(), "a".parse().unwrap())), [5]);
        leases.take(&holder("b"), 5);
        assert_eq!((others(&mut leases, "a"), others(&mut leases, "b")), (vec![5], vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn leases_are_bounded() {
        let mut leases = Leases::default();
        (0..3000).for_each(|face| leases.take(&holder("a"), face));
        let held = others(&mut leases, "b");
        assert_eq!((held.len(), held[0]), (Leases::MAX_FACES, 1000));
        for client in 0..Leases::MAX_CLIENTS as i64 {
            tokio::time::advance(Duration::from_millis(1)).await;
            leases.take(&holder(&format!("c{client}")), 10_000 + client);
        }
        assert_eq!(leases.clients.len(), Leases::MAX_CLIENTS);
        assert!(!leases.clients.contains_key(&holder("a")), "it was silent for longest");
        assert_eq!(leases.holders.len(), Leases::MAX_CLIENTS);
    }
}
