package console

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"weft/coord/ops"
)

const (
	devicesCookie = "-devices"
	devicesLife   = 365 * 24 * time.Hour
)

// deviceColumnNames are the columns in their order. The id of each is what the list is sorted
// by, what the cookie says and what styles are written for. The name is always there.
var deviceColumnNames = []struct {
	id, title string
	hidden    bool // unless it is chosen
}{
	{"status", "Status", false}, {"name", "Name", false}, {"tags", "Tags", false}, {"address", "Address", false}, {"relay", "Relay", false},
	{"version", "Version", false}, {"owner", "Owner", false}, {"system", "System", true}, {"seen", "Last seen", false},
}

// deviceLook is how a person wants the list to look, in one browser.
type deviceLook struct {
	shown map[string]bool
	roomy bool
}

// deviceLook reads the cookie: words with dots between them, the columns that are shown and
// "roomy".
func (c *Console) deviceLook(r *http.Request) deviceLook {
	look := deviceLook{shown: map[string]bool{}}
	ck, err := r.Cookie(c.cookieName(r, devicesCookie))
	var words []string
	if err == nil {
		words = strings.Split(cut(ck.Value, 200), ".")
	}
	chosen := slices.Contains(words, "columns")
	for _, col := range deviceColumnNames {
		look.shown[col.id] = col.id == "name" || !chosen && !col.hidden || chosen && slices.Contains(words, col.id)
	}
	look.roomy = slices.Contains(words, "roomy")
	return look
}

// setDeviceLook remembers which columns are shown and how high rows are.
func (c *Console) setDeviceLook(v *visit) error {
	words := []string{"columns"}
	for _, col := range deviceColumnNames {
		if slices.Contains(v.r.PostForm["column"], col.id) {
			words = append(words, col.id)
		}
	}
	if v.r.PostForm.Get("rows") == "roomy" {
		words = append(words, "roomy")
	}
	http.SetCookie(v.w, c.newCookie(v.r, devicesCookie, strings.Join(words, "."), devicesLife))
	return v.redirect(listPath(v.r.PostForm.Get("back")))
}

// listPath is the address of a list that a form came from; of another one the plain list.
func listPath(back string) string {
	u, err := url.Parse(localPath(back))
	if err != nil || u.Path != "/devices" {
		return "/devices"
	}
	q := deviceQuery(u.Query())
	return devicesPath(q)
}

// deviceColumns are the columns, and where a click on each leads.
func deviceColumns(q ops.DeviceQuery, look deviceLook) (list []deviceColumn) {
	q.Offset = 0
	by, down := strings.CutPrefix(q.Sort, "-")
	if by == "" {
		by = "name"
	}
	column := func(id, title string, shown bool) deviceColumn {
		col := deviceColumn{ID: id, Title: title, Shown: shown}
		to := q
		switch to.Sort = id; {
		case by == id && down:
			col.Sort = "descending"
		case by == id:
			col.Sort, to.Sort = "ascending", "-"+id
		}
		if to.Sort == "name" {
			to.Sort = ""
		}
		col.Href = devicesPath(to)
		return col
	}
	for _, c := range deviceColumnNames {
		list = append(list, column(c.id, c.title, look.shown[c.id]))
	}
	return list
}
