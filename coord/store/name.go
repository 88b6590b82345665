package store

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"weft/overlay/cert"
)

// Names are unique in a network. The second "kitchen-pi" becomes kitchen-pi-1, and so on with
// the lowest number that is free. For each base, name_bases has the lowest number that was
// never used, and name_gaps the lower numbers that are free again. So the 50,000th "cam"
// costs as much as the first.

// maxLabel is the longest DNS label (RFC 1035 2.3.4).
const maxLabel = 63

// AllocName returns base, or base-N with the lowest free N. base is a valid label. The caller
// inserts the node's row in the same transaction.
func (tx *Tx) AllocName(id cert.NetworkID, base string) (string, error) {
	if len(base) > maxLabel-7 { // room for -999999
		base = strings.TrimRight(base[:maxLabel-7], "-")
	}
	for {
		number, err := tx.takeNumber(id, base)
		if err != nil {
			return "", fmt.Errorf("find a free name for %q: %w", base, err)
		}
		name := numbered(base, number)
		// A device may have been given exactly this name, or had it recently.
		taken, err := tx.NameTaken(id, name)
		if err != nil {
			return "", err
		}
		if !taken {
			return name, nil
		}
	}
}

func (tx *Tx) takeNumber(id cert.NetworkID, base string) (number int, err error) {
	err = tx.row(`SELECT number FROM name_gaps WHERE network_id=$1 AND base=$2 ORDER BY number LIMIT 1`, []any{id[:], base}, &number)
	if err == nil {
		return number, tx.exec(`DELETE FROM name_gaps WHERE network_id=$1 AND base=$2 AND number=$3`, id[:], base, number)
	}
	if !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	err = tx.row(`INSERT INTO name_bases (network_id, base, next) VALUES ($1,$2,1)
		ON CONFLICT (network_id, base) DO UPDATE SET next = next + 1 RETURNING next - 1`, []any{id[:], base}, &number)
	return number, err
}

// freeName stores that a name may be used again: as a base, and as a numbered name of a
// shorter base.
func (tx *Tx) freeName(id cert.NetworkID, name string) error {
	if err := tx.addGap(id, name, 0); err != nil {
		return err
	}
	i := strings.LastIndexByte(name, '-')
	if i <= 0 {
		return nil
	}
	number, err := strconv.Atoi(name[i+1:])
	if err != nil || number < 1 || strconv.Itoa(number) != name[i+1:] {
		return nil
	}
	return tx.addGap(id, name[:i], number)
}

// addGap stores a number as free if it is below the next number of its base.
func (tx *Tx) addGap(id cert.NetworkID, base string, number int) error {
	return tx.exec(`INSERT INTO name_gaps (network_id, base, number)
		SELECT network_id, base, $3 FROM name_bases WHERE network_id=$1 AND base=$2 AND next > $3
		ON CONFLICT DO NOTHING`, id[:], base, number)
}

func numbered(base string, number int) string {
	if number == 0 {
		return base
	}
	return base + "-" + strconv.Itoa(number)
}
