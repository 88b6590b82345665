package ops

import (
	"fmt"

	"weft/coord/policy"
	"weft/coord/store"
)

// DeleteUser deletes a user, by name or id. The user is signed out everywhere, and the user's
// tokens end; tokens and keys that the user made for others are revoked. If the user owns devices
// or keys, the command has to say what happens to them, or it is refused with ErrTaken. No user
// can get the name again.
type DeleteUser struct {
	Name string
	// DevicesTo is the name of the user who gets the devices, which then get new certificates.
	// The keys are revoked, because devices that join with them would become that user's.
	DevicesTo string
	// DeleteDevices deletes the devices and the keys.
	DeleteDevices bool
}

func (DeleteUser) operation() *Operation { return opUserDelete }

// UserDeleted is a user that was deleted.
type UserDeleted struct {
	store.User
	Devices  int      `json:"devices"`  // how many were handed over or deleted
	Keys     int      `json:"keys"`     // how many were revoked or deleted
	Warnings []string `json:"warnings"` // rules of the policy that still name the user
}

func (c DeleteUser) run(tx *Tx) (UserDeleted, error) {
	out := UserDeleted{Warnings: []string{}}
	u, err := tx.userToChange(c.Name)
	out.User = u
	if err != nil {
		return out, err
	}
	if err := tx.lastOwner(u); err != nil {
		return out, err
	}
	if out.Devices, out.Keys, err = tx.Belongings(tx.s.network, u.ID); err != nil {
		return out, err
	}
	switch {
	case c.DevicesTo != "" && c.DeleteDevices:
		return out, Invalid("the devices of %s can be handed over or deleted, but not both", u.Name)
	case out.Devices+out.Keys == 0:
	case c.DevicesTo != "":
		err = tx.handOverDevices(u, c.DevicesTo)
	case c.DeleteDevices:
		err = tx.deleteDevices(u)
	default:
		err = inTheWay("%s still owns %s; hand the devices to another user, or delete everything (weft-server users delete %[1]s --devices-to NAME, or --delete-devices)", u.Name, belongings(out.Devices, out.Keys))
	}
	if err != nil {
		return out, err
	}
	if err := tx.endAll(u); err != nil {
		return out, err
	}
	if err := tx.RevokeMadeBy(tx.s.network, u.ID, tx.now); err != nil {
		return out, err
	}
	if err := tx.Tx.DeleteUser(tx.s.network, u.ID); err != nil {
		return out, err
	}
	tx.did(userTarget(u), userAs(u), nil)
	n, err := tx.Network()
	if err != nil {
		return out, err
	}
	if p, err := policy.Stored(n.Policy); err == nil {
		for _, r := range p.Naming(u.Name) {
			out.Warnings = append(out.Warnings, r.String())
		}
	}
	return out, tx.userChanged(u)
}

func belongings(devices, keys int) string {
	count := func(n int, what string) string {
		if n == 1 {
			return "1 " + what
		}
		return fmt.Sprintf("%d %ss", n, what)
	}
	switch {
	case keys == 0:
		return count(devices, "device")
	case devices == 0:
		return count(keys, "key")
	}
	return count(devices, "device") + " and " + count(keys, "key")
}

// deleteDevices deletes the devices and keys of a user.
func (tx *Tx) deleteDevices(u store.User) error {
	ids, err := tx.NodesOf(tx.s.network, u.ID)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := within(tx, DeleteDevice{id}); err != nil {
			return err
		}
	}
	return tx.DeleteKeys(tx.s.network, u.ID)
}

// handOverDevices gives the devices of a user to another one.
func (tx *Tx) handOverDevices(u store.User, to string) error {
	other, err := tx.UserByName(tx.s.network, to)
	if err != nil {
		return About(KindUser, to, err)
	}
	if other.ID == u.ID {
		return Invalid("%s is the user to be deleted and cannot keep the devices", u.Name)
	}
	ids, err := tx.NodesOf(tx.s.network, u.ID)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := within(tx, AssignDevice{ID: id, User: &other.Name}); err != nil {
			return err
		}
	}
	return tx.GiveKeys(tx.s.network, u.ID, other.ID, tx.now)
}
