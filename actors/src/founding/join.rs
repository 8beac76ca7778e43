//! Whether a cluster lets a node in. Pure: the metadata group decides by this, with the members that it knows and who of them lives.

use crate::peer::NodeId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMember {
    pub node: NodeId,
    pub name: String,
    pub alive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is one; perhaps under a new name or address.
    IsMember,
    Add,
    /// It takes the place of this dead member, under its own id, as a learner first: what the former one knew died with its directory.
    Replace(NodeId),
    Refuse(String),
}

/// `member` asks to be let in under `name`.
pub fn decide(members: &[KnownMember], asker: NodeId, name: &str) -> Verdict {
    if let Some(twin) = members.iter().find(|member| member.node != asker && member.node.member() == asker.member()) {
        return Verdict::Refuse(format!("its number is that of node {} ({}): start it with an empty directory", twin.name, twin.node));
    }
    match members.iter().find(|member| member.name == name && member.node != asker) {
        Some(bearer) if bearer.alive => Verdict::Refuse(format!(
            "node {} bears the name {name} and lives: choose another --node, or stop that one if this is to replace it",
            bearer.node
        )),
        _ if members.iter().any(|member| member.node == asker) => Verdict::IsMember,
        Some(bearer) => Verdict::Replace(bearer.node),
        None => Verdict::Add,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u64, name: &str, alive: bool) -> KnownMember {
        KnownMember { node: NodeId::from_member(node, 0), name: name.to_owned(), alive }
    }

    #[test]
    fn name_of_a_living_member_is_taken_and_that_of_a_dead_one_is_inherited() {
        let members = [member(1, "n1", true), member(2, "n2", false)];
        let new = NodeId::from_member(3, 0);
        assert_eq!(decide(&members, new, "n3"), Verdict::Add);
        assert_eq!(decide(&members, new, "n2"), Verdict::Replace(members[1].node));
        assert!(matches!(decide(&members, new, "n1"), Verdict::Refuse(reason) if reason.contains("lives")));
    }

    #[test]
    fn member_that_comes_back_is_one_whatever_its_name_unless_it_takes_another_ones() {
        let members = [member(1, "n1", true), member(2, "n2", false)];
        assert_eq!(decide(&members, members[1].node, "n2"), Verdict::IsMember);
        assert_eq!(decide(&members, members[1].node, "other"), Verdict::IsMember);
        assert!(matches!(decide(&members, members[1].node, "n1"), Verdict::Refuse(_)));
    }

    #[test]
    fn two_nodes_with_one_number_are_never_members_together() {
        let members = [member(1, "n1", true)];
        assert!(matches!(decide(&members, NodeId::from_member(1, 9), "n9"), Verdict::Refuse(_)));
    }
}
