//! What a server with a log says to a newborn (rule 4 of the [module](super)).

use crate::{BirthReport, BirthStage, Incarnation, Membership, NodeId};

/// The answer to the report of a newborn `from` with this birth: by the membership that is entry 1, while
/// the log still tells it, and the one that is in force. `None` where there is nothing to say.
pub(crate) fn answer(
    founding: Option<&Membership>,
    current: &Membership,
    is_committed: bool,
    from: NodeId,
    birth: Incarnation,
    report: &BirthReport,
) -> Option<BirthReport> {
    let is_newborn = report.life != 0 && matches!(report.stage, BirthStage::Newborn { .. });
    // A joiner without a log knows nothing.
    if !is_newborn || birth.0 == 0 || current.nodes.is_empty() {
        return None;
    }
    let known = current.incarnation(from);
    let was_replaced = known.0 != 0 && known != birth;
    let stage = match founding {
        Some(founding) if founding.incarnation(from) == birth && !was_replaced => {
            if is_committed {
                BirthStage::Founded { membership: founding.clone() }
            } else {
                BirthStage::Newborn { founders: founding.nodes.clone() }
            }
        }
        // It belongs to the cluster, and only a snapshot could tell it how the cluster began.
        None if known == birth => return None,
        _ => BirthStage::AlreadyFounded,
    };
    Some(BirthReport { life: 0, echo: report.life, stage })
}
