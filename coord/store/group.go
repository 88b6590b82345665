package store

import (
	"fmt"
	"slices"
	"time"

	"weft/overlay/cert"
)

// Group is a group of people.
type Group struct {
	Name    string     `json:"name"`
	Sources []string   `json:"sources"` // the providers that report its members; empty for a group that the network's admins made
	Members []string   `json:"members"` // names of users, sorted
	Created *time.Time `json:"created"` // nil for a group of a provider
}

// counts selects the rows of user_groups u that count: a group that was made here has only
// the members that it was given here.
const counts = `(u.source = '' OR NOT EXISTS (SELECT 1 FROM groups g WHERE g.network_id = u.network_id AND g.name = u.name))`

// Groups lists the groups of a user.
func (r *Reader) Groups(id cert.NetworkID, userID string) (groups []string, err error) {
	err = r.each(`SELECT DISTINCT u.name FROM user_groups u WHERE u.network_id=$1 AND u.user_id=$2 AND `+counts+` ORDER BY u.name`, []any{id[:], userID}, func(scan func(...any) error) error {
		var g string
		err := scan(&g)
		groups = append(groups, g)
		return err
	})
	return groups, err
}

// GroupsOf returns the groups of all users, by their ids.
func (r *Reader) GroupsOf(id cert.NetworkID) (map[string][]string, error) {
	m := map[string][]string{}
	err := r.each(`SELECT DISTINCT u.user_id, u.name FROM user_groups u WHERE u.network_id=$1 AND `+counts+` ORDER BY u.user_id, u.name`, []any{id[:]}, func(scan func(...any) error) error {
		var user, group string
		err := scan(&user, &group)
		m[user] = append(m[user], group)
		return err
	})
	return m, err
}

// AllGroups lists the groups with their members, by name.
func (r *Reader) AllGroups(id cert.NetworkID) ([]Group, error) { return r.groups(id, "") }

// Group finds a group by name.
func (r *Reader) Group(id cert.NetworkID, name string) (Group, error) {
	list, err := r.groups(id, name)
	if err == nil && (len(list) == 0 || name == "") {
		err = ErrNotFound
	}
	if err != nil {
		return Group{}, err
	}
	return list[0], nil
}

// groups lists the groups with this name, all for "".
func (r *Reader) groups(id cert.NetworkID, name string) (list []Group, err error) {
	err = r.each(`SELECT name, created_at, '', '' FROM groups WHERE network_id=$1 AND ($2 = '' OR name = $2)
		UNION ALL SELECT u.name, NULL, u.source, p.name FROM user_groups u JOIN users p ON p.network_id = u.network_id AND p.user_id = u.user_id
			WHERE u.network_id=$1 AND ($2 = '' OR u.name = $2) AND `+counts+` ORDER BY 1, 2 DESC, 4, 3`, []any{id[:], name}, func(scan func(...any) error) error {
		var group, source, member string
		var created *time.Time
		if err := scan(&group, maybeTime{&created}, &source, &member); err != nil {
			return err
		}
		if len(list) == 0 || list[len(list)-1].Name != group {
			list = append(list, Group{Name: group, Sources: []string{}, Members: []string{}})
		}
		g := &list[len(list)-1]
		if created != nil {
			g.Created = created
			return nil
		}
		if source != "" && !slices.Contains(g.Sources, source) {
			g.Sources = append(g.Sources, source)
		}
		if n := len(g.Members); n == 0 || g.Members[n-1] != member {
			g.Members = append(g.Members, member)
		}
		return nil
	})
	return list, err
}

// CreateGroup stores a group without members; ErrTaken if a group of this name exists, also
// one of a provider.
func (tx *Tx) CreateGroup(id cert.NetworkID, g Group) error {
	list, err := tx.groups(id, g.Name)
	if err == nil && len(list) > 0 {
		err = ErrTaken
	}
	if err != nil {
		return err
	}
	if err := tx.exec(`INSERT INTO groups (network_id, name, created_at) VALUES ($1,$2,$3)`, id[:], g.Name, g.Created.Unix()); err != nil {
		return fmt.Errorf("create group: %w", err)
	}
	return nil
}

// CountGroups counts the groups that were made here.
func (r *Reader) CountGroups(id cert.NetworkID) (n int, err error) {
	err = r.row(`SELECT COUNT(*) FROM groups WHERE network_id=$1`, []any{id[:]}, &n)
	return n, err
}

// DeleteGroup deletes a group that was made here, with its membership.
func (tx *Tx) DeleteGroup(id cert.NetworkID, name string) error {
	if err := tx.exec(`DELETE FROM user_groups WHERE network_id=$1 AND source='' AND name=$2`, id[:], name); err != nil {
		return err
	}
	return tx.changed(`DELETE FROM groups WHERE network_id=$1 AND name=$2`, id[:], name)
}

// SetMember adds a user to a group that was made here, or removes it.
func (tx *Tx) SetMember(id cert.NetworkID, name, userID string, in bool) error {
	if !in {
		return tx.exec(`DELETE FROM user_groups WHERE network_id=$1 AND user_id=$2 AND source='' AND name=$3`, id[:], userID, name)
	}
	return tx.exec(`INSERT INTO user_groups (network_id, user_id, source, name) VALUES ($1,$2,'',$3) ON CONFLICT DO NOTHING`, id[:], userID, name)
}

// SetGroups stores the groups of a user that a source reports, and deletes those that it
// reported earlier.
func (tx *Tx) SetGroups(id cert.NetworkID, userID, source string, groups []string) error {
	if err := tx.exec(`DELETE FROM user_groups WHERE network_id=$1 AND user_id=$2 AND source=$3`, id[:], userID, source); err != nil {
		return err
	}
	for _, g := range groups {
		if err := tx.exec(`INSERT INTO user_groups (network_id, user_id, source, name) VALUES ($1,$2,$3,$4) ON CONFLICT DO NOTHING`, id[:], userID, source, g); err != nil {
			return err
		}
	}
	return nil
}
