package console

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"weft/coord/install"
)

// The page Add: what joins is chosen, a key is made for it, and the page of the key (join.go)
// shows the line or the steps for exactly that choice.

// addChoice is something that joins.
type addChoice struct {
	ID, Title, Note string
	Key             string // kind of its key: "device" or "laptop"
	System          string // whose program has to be in the release, as Go calls it; "" for none
	Fetches         bool   // its line has the server's files fetched
}

var addChoices = []addChoice{
	{"linux", "Linux", "A Raspberry Pi, a server, a camera", "device", "linux", true},
	{"macos", "macOS", "A Mac that is reached", "device", "darwin", true},
	{"windows", "Windows", "A PC that is reached", "device", "windows", true},
	{"openwrt", "OpenWrt", "A router", "device", "linux", true},
	{"container", "Container", "Docker or Podman", "device", "", false},
	{"image", "Golden image", "One disk, many devices", "device", "linux", true},
	{"laptop", "Laptop", "A computer you work at", "laptop", "", true},
}

// chosen finds a choice, or the first for a kind of key.
func chosen(id, kind string) addChoice {
	for _, c := range addChoices {
		if c.ID == id && (kind == "" || c.Key == kind) {
			return c
		}
	}
	for _, c := range addChoices {
		if c.Key == kind {
			return c
		}
	}
	return addChoices[0]
}

// choiceView is a choice as a link.
type choiceView struct {
	addChoice
	Href string
	Here bool
}

func (c *Console) add(v *visit) error {
	return c.keyForm(v, http.StatusOK, newKeyView{For: chosen(v.r.URL.Query().Get("for"), "")})
}

func (c *Console) addDevice(v *visit) error {
	return c.keyForm(v, http.StatusOK, newKeyView{For: chosen("linux", "")})
}

func (c *Console) addLaptop(v *visit) error {
	return c.keyForm(v, http.StatusOK, newKeyView{For: chosen("laptop", "")})
}

func addPath(id string) string { return "/add?for=" + id }

// fetched is what the server has seen of a device that is to join with a key.
type fetched struct {
	at      time.Time // of the first request for the script or the program; zero for none
	program time.Time // of the first for the program
	from    netip.Addr
	reached time.Time // of the first connection test of a device that joined with it
}

// Fetched is told that somebody fetches the install script, or a program, for a key. Anybody
// can cause it; only keys whose token is shown are watched.
func (c *Console) Fetched(keyID string, program bool, from netip.Addr) {
	now := c.now()
	c.mu.Lock()
	t, ok := c.shown[keyID]
	if !ok || !t.until.After(now) {
		c.mu.Unlock()
		return
	}
	news := t.seen.at.IsZero() || program && t.seen.program.IsZero()
	if t.seen.at.IsZero() {
		t.seen.at = now
	}
	if program && t.seen.program.IsZero() {
		t.seen.program = now
	}
	t.seen.from = from
	c.shown[keyID] = t
	c.mu.Unlock()
	if news {
		c.tell(t.session, "key-"+keyID)
	}
}

// reached notes that a device that joined with a key answered.
func (c *Console) reached(keyID string) {
	now := c.now()
	c.mu.Lock()
	t, ok := c.shown[keyID]
	first := ok && t.seen.reached.IsZero()
	if first {
		t.seen.reached = now
		c.shown[keyID] = t
	}
	c.mu.Unlock()
	if first {
		c.tell(t.session, "key-"+keyID)
	}
}

// seen is what the server has seen of who is to join with a key; watched is whether it would
// see more.
func (c *Console) seen(keyID string) (f fetched, watched bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.shown[keyID]
	return t.seen, ok && t.until.After(c.now())
}

// stepView is one of the steps until a device is reached.
type stepView struct {
	Title  string
	State  string // "done", "now", "todo" or "failed"
	Detail string
}

// troubleView is what is wrong, and what to do about it.
type troubleView struct {
	Text  string
	Cures []string
}

// stepLine is a command, and where it goes.
type stepLine struct {
	Where string
	Line  command
}

// command is a line to copy. What is shown of it leaves out Cut, the middle of a token.
type command struct {
	Name            string // what is copied, for the button
	Head, Cut, Tail string
}

// All is the whole line.
func (c command) All() string { return c.Head + c.Cut + c.Tail }

// commandOf makes a command of a line with a token in it.
func commandOf(name, line, token string) command {
	const head, tail = 12, 6
	at := strings.Index(line, token)
	if token == "" || at < 0 || len(token) <= head+tail+6 {
		return command{Name: name, Head: line}
	}
	return command{name, line[:at+head], line[at+head : at+len(token)-tail], line[at+len(token)-tail:]}
}

// recipe is how to join as a choice.
type recipe struct {
	Missing string // why there is no line: what the owner of the server has to do first; "" if there is one
	Before  []stepLine
	Title   string // of the main line
	Line    *command
	Notes   []string
	Others  []stepLine // other ways, in their order
}

// recipeOf says how something joins with a token, by what the server really hands out.
func recipeOf(choice addChoice, o *install.Offer, keyID, token string, reusable bool) (r recipe) {
	on := func(where, line string) stepLine { return stepLine{where, commandOf(where, line, token)} }
	main := func(title, line string) {
		cmd := commandOf(title, line, token)
		r.Title, r.Line = title, &cmd
	}
	byHand := func() {
		if reusable {
			r.Others = append(r.Others, on("Without installing: save the token, since command lines are visible to others", fmt.Sprintf("(umask 077; echo %s > weft.token)", token)),
				on("then, where the program is, without root", "weft run --token-file weft.token"))
		} else {
			r.Others = append(r.Others, on("Without installing, where the program is, without root", "weft run --token "+token))
		}
	}
	if choice.System != "" && o == nil {
		r.Missing = "This server has no release to hand out yet."
	} else if choice.System != "" && !o.Has(choice.System) {
		r.Missing = "The release on this server has no program for this system."
	}
	const service = "It installs weft as a service that starts at every boot, and joins. Only this server is asked, and no port is opened."
	switch choice.ID {
	case "container":
		r.Before = []stepLine{
			on("Once, where the source of weft is: build the program and its image", "scripts/release --key ~/release.key linux/amd64 && docker build -f scripts/package/Dockerfile --build-arg ARCH=amd64 -t weft releases"),
		}
		main("Then run the container", fmt.Sprintf("docker run -d --name weft --restart unless-stopped -v weft:/state -e WEFT_TOKEN=%s weft", token))
		r.Notes = []string{"In the container weft runs without root and without a network interface. The volume keeps its identity: with it, the token is needed once.", "For arm64, put arm64 in the place of amd64."}
		return r
	case "windows":
		if r.Missing == "" {
			if line := o.WindowsLine("amd64", keyID, token); line != "" {
				main("In PowerShell, opened as administrator", line)
			}
			if line := o.WindowsLine("arm64", keyID, token); line != "" {
				if r.Line == nil {
					main("In PowerShell on ARM, opened as administrator", line)
				} else {
					r.Others = append(r.Others, on("On a PC with ARM", line))
				}
			}
			r.Notes = []string{"It fetches the program, compares it with the hash in the line, installs it as a service that starts with Windows, and joins. There is no installer to click."}
		}
		return r
	case "laptop":
		if o != nil {
			main("On Linux or macOS, in a terminal", o.Line(keyID, token))
			r.Notes = []string{service, "It asks for your password through sudo where it is not run as root.", "To reach devices from every program, and not only through weft, add --tun weft0 to the line (Linux)."}
			if line := o.WindowsLine("amd64", keyID, token); line != "" {
				r.Others = append(r.Others, on("On Windows, in PowerShell opened as administrator", line))
			}
		}
		r.Others = append(r.Others, on("Without installing, where the program is: start weft, without root", "weft run"), on("then join, in a second terminal", "weft up "+token))
		if o == nil {
			r.Missing = "This server has no release to hand out yet."
		}
		return r
	case "image":
		if r.Missing == "" {
			main("On the machine whose disk is copied, as the last thing before you copy it", o.Line(keyID, token)+" --first-boot")
			r.Notes = []string{
				"It installs weft and starts nothing. Each copy makes its own identity and joins when it boots for the first time.",
				"Do not start weft on this machine before: one that has joined is refused here, since all its copies would be the same device. weft uninstall --purge makes it new again.",
				"It takes root. The token lies on the image, readable by root only; with systemd each copy removes it once it has joined. Revoke the key when the last copy has joined.",
			}
		}
		return r
	}
	if r.Missing == "" {
		line := o.Line(keyID, token)
		switch choice.ID {
		case "openwrt":
			r.Before = []stepLine{on("Once, if the router has no curl (on OpenWrt 25 and later: apk add curl)", "opkg update && opkg install curl")}
			main("On the router, over SSH", line)
			r.Notes = []string{service, "After a sysupgrade run the line again. With /etc/weft in /etc/sysupgrade.conf it stays the same device."}
		case "macos":
			main("In a terminal on the Mac", line)
			r.Notes = []string{service, "It asks for an administrator’s password through sudo."}
		default:
			main("On the device, in a shell", line)
			r.Notes = []string{service, "It takes root, and asks for it through sudo where it has to."}
			r.Others = append(r.Others, on("Without root, as a service of one user (systemd)", line+" --user"))
		}
	}
	if choice.ID != "openwrt" {
		byHand()
	}
	return r
}

// joinSteps are the steps until what joins is reached, and what is wrong if they do not go on.
// waited is since when somebody could have used the token.
func joinSteps(now time.Time, choice addChoice, k keyView, seen fetched, waited time.Time, newest *deviceView, joined time.Time, host string) (steps []stepView, trouble *troubleView) {
	state := func(done, now bool) string {
		switch {
		case done:
			return "done"
		case now:
			return "now"
		}
		return "todo"
	}
	asked := !seen.at.IsZero()
	here := newest != nil
	steps = append(steps, stepView{Title: "Waiting", State: state(asked || here, k.Open)})
	if choice.Fetches {
		s := stepView{Title: "Downloading", State: state(here, asked)}
		if asked {
			s.Detail = "from " + addrText(seen.from)
			if !seen.from.IsValid() {
				s.Detail = ""
			}
		}
		steps = append(steps, s)
	}
	s := stepView{Title: "Joined", State: state(here, false)}
	if here {
		s.Detail = newest.Name
	}
	steps = append(steps, s)
	s = stepView{Title: "Reachable", State: state(!seen.reached.IsZero(), here)}
	switch {
	case seen.reached.IsZero():
	case asked:
		s.Detail = fmt.Sprintf("in %.1f s", max(seen.reached.Sub(seen.at), 0).Seconds())
	case here:
		s.Detail = fmt.Sprintf("in %d s", max(int(seen.reached.Sub(joined).Seconds()), 0))
	}
	steps = append(steps, s)

	fail := func(step int, text string, cures ...string) {
		steps[step].State = "failed"
		trouble = &troubleView{Text: text, Cures: cures}
	}
	last := len(steps) - 1
	const (
		quiet    = 2 * time.Minute
		installs = 3 * time.Minute
		answers  = 30 * time.Second
	)
	switch {
	case here && seen.reached.IsZero() && !newest.Online && now.Sub(joined) > answers:
		fail(last, newest.Name+" has joined, and is not connected to a relay.", "Look there: weft doctor says what is wrong.", "It needs a way out to this server by TCP, which a proxy or firewall may hold up.")
	case here:
	case !k.Open:
	case asked && choice.ID != "image" && now.Sub(seen.at) > installs: // images join when their copies boot
		fail(1, "The files were fetched "+shortTime(seen.at, now)+", and nothing has joined.", "The terminal there says why. Run the line again: that does no harm.", "If it says that the token is wrong, it was not copied whole: use Copy.")
	case !asked && now.Sub(waited) > quiet:
		cures := []string{"Has the whole line been run there? Use Copy: the line in view is shortened."}
		if host != "" {
			cures = append(cures, "Does the device reach "+host+"? A firewall or another network may be in between.")
		}
		fail(0, "Nothing has asked this server since the token was made, "+shortTime(waited, now)+".", append(cures, "Is its clock right? A device in the past or future does not trust certificates.")...)
	}
	return steps, trouble
}
