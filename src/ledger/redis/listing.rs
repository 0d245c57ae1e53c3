//! Pages of photos, merged from the sorted sets of the groups that a filter selects.

use super::keys::{self, GroupKind, PhotoGroup};
use super::{Bytes, Counters, PAGE, Redis, body};
use crate::domain::{Id, RunName};
use crate::ledger::{Entry, Filter, LedgerError, PhotoStatus};

impl Redis {
    /// The ids of one page. The sets that the filter selects are read at the same moment. Beyond the last member of
    /// a set that may have more, the order is not known yet: another round reads on from there.
    pub(super) async fn ids(
        &self,
        run: &RunName,
        filter: &Filter,
        after: Option<&Id>,
        limit: usize,
    ) -> Result<Vec<Id>, LedgerError> {
        const WHAT: &str = "list photos";
        let keys = self.keys(run);
        let mut groups: Counters = self.client.command(WHAT, redis::cmd("HGETALL").arg(keys.counts())).await?;
        groups.retain(|(name, _)| PhotoGroup::parse(name).is_some_and(|group| group.matches(filter)));
        let total: u64 = groups.iter().map(|(_, count)| count).sum();
        let name = |(name, _): &(String, u64)| match &filter.host {
            Some(host) => keys.group_and_host(name, host),
            None => keys.group(name),
        };
        let names: Vec<String> = groups.iter().map(name).collect();
        let (mut ids, mut after) = (Vec::new(), after.map(keys::member));
        while !names.is_empty() && ids.len() < limit {
            let left = limit - ids.len();
            // A large group has more of the next ids than a small group.
            let share = |count: u64| (left as u64 * count * 5 / (4 * total.max(1)) + 16).min(left as u64);
            let shares: Vec<u64> = groups.iter().map(|(_, count)| share(*count)).collect();
            let mut arguments = vec![after.as_ref().map_or(b"-".to_vec(), |after| [b"(", after.as_slice()].concat())];
            arguments.extend(shares.iter().map(|share| share.to_string().into_bytes()));
            let value = self.client.script(WHAT, &PAGE, &names, &arguments).await?;
            let members: Vec<Vec<Bytes>> =
                redis::from_redis_value(value).map_err(|error| self.client.refused(WHAT, error))?;
            let may_go_on = members.iter().zip(&shares).filter(|(members, share)| members.len() as u64 == **share);
            let horizon = may_go_on.filter_map(|(members, _)| members.last()).min().cloned();
            let mut merged: Vec<Bytes> = members.into_iter().flatten().collect();
            merged.retain(|member| horizon.as_ref().is_none_or(|horizon| member <= horizon));
            merged.sort_unstable();
            ids.extend(merged.iter().take(left).filter_map(|member| keys::id_of_member(member)));
            if horizon.is_none() {
                break;
            }
            after = horizon;
        }
        Ok(ids)
    }

    /// The stored photos. Those that no longer match the filter are left out.
    pub(super) async fn entries(
        &self,
        run: &RunName,
        filter: &Filter,
        ids: Vec<Id>,
    ) -> Result<Vec<Entry>, LedgerError> {
        const WHAT: &str = "list photos";
        let keys = self.keys(run);
        let mut pipe = redis::pipe();
        pipe.atomic();
        for key in [keys.photos(), keys.messages()] {
            pipe.cmd("HMGET").arg(key);
            for id in &ids {
                pipe.arg(id.as_str());
            }
        }
        let (photos, messages): (Vec<Option<Bytes>>, Vec<Option<Bytes>>) = self.client.pipeline(WHAT, &pipe).await?;
        let mut entries = Vec::with_capacity(ids.len());
        for ((photo_id, stored), message) in ids.into_iter().zip(photos).zip(messages) {
            let Some(stored) = stored else { continue };
            let packed = self.read(WHAT, &stored)?;
            let code = packed.fields.cause.as_ref().map(|cause| cause.code.clone());
            let group = PhotoGroup { stage: packed.at.stage, kind: GroupKind::of(packed.at, packed.ending), code };
            if group.matches(filter) && filter.host.as_ref().is_none_or(|host| *host == packed.fields.host) {
                let message = message.map(|body| body::unpack(&body)).transpose();
                let message = message.map_err(|error| self.client.refused(WHAT, error))?;
                entries.push(Entry { photo_id, status: PhotoStatus { message, ..packed.status() } });
            }
        }
        Ok(entries)
    }
}
