package dns

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// localNames is set in the process that asks for local names while other queries wait.
// It is a process of its own, as clients are, so that the resolver alone is measured.
const localNames = "WEFT_TEST_LOCAL_NAMES"

func TestMain(m *testing.M) {
	if addr := os.Getenv(localNames); addr != "" {
		if err := askLocalNames(addr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// askLocalNames asks for a local name every millisecond until its input ends, and
// prints how many answers came and how fast.
func askLocalNames(addr string) error {
	end := make(chan struct{})
	go func() { defer close(end); bufio.NewReader(os.Stdin).ReadByte() }()
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	var took []time.Duration
	buf := make([]byte, maxUDP)
	for id := uint16(1); ; id++ {
		select {
		case <-end:
			slices.Sort(took)
			if len(took) == 0 {
				return fmt.Errorf("nothing was asked")
			}
			fmt.Println(len(took), int64(took[len(took)/2]), int64(took[len(took)*99/100]), int64(took[len(took)-1]))
			return nil
		case <-time.After(time.Millisecond):
		}
		m := new(dns.Msg)
		m.SetQuestion("kitchen-pi.weft.internal.", dns.TypeA)
		m.Id = id
		out, err := m.Pack()
		if err != nil {
			return err
		}
		begin := time.Now()
		if _, err := c.Write(out); err != nil {
			return err
		}
		c.SetReadDeadline(begin.Add(10 * time.Second))
		for {
			n, err := c.Read(buf)
			if err != nil {
				return fmt.Errorf("a local name: %w", err)
			}
			if n > headerLen && binary.BigEndian.Uint16(buf) == id {
				if buf[3]&0xf != 0 || buf[7] != 1 {
					return fmt.Errorf("a local name: answered with rcode %d and %d records", buf[3]&0xf, buf[7])
				}
				break
			}
		}
		took = append(took, time.Since(begin))
	}
}

// times are the results of askLocalNames.
type times struct {
	asked             int
	median, p99, most time.Duration
}

// localTimes measures queries for local names while during runs.
func localTimes(t *testing.T, addr string, during func()) (is times) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), localNames+"="+addr)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	during()
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if _, err := fmt.Sscan(out.String(), &is.asked, &is.median, &is.p99, &is.most); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return is
}

func (t times) String() string {
	r := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
	return fmt.Sprintf("%d asked, median %v, p99 %v, longest %v", t.asked, r(t.median), r(t.p99), r(t.most))
}

// 500 questions that wait for dead or half-open resolvers are answered with SERVFAIL
// within 5 s, and local names do not wait for them.
func TestDeadUpstreams(t *testing.T) {
	half, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	_, addr := start(t, Config{Settings: settings(Settings{Nameservers: []Nameserver{
		{Address: silentUDP(t)}, {Address: "tls://" + half.Addr().String()}, {Address: "127.0.0.1:1"},
	}})})
	const questions = 500
	round, inTime := 0, 0
	flood := func() {
		round++
		c, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.(*net.UDPConn).SetReadBuffer(1 << 20)
		time.Sleep(100 * time.Millisecond) // let the other process start
		ask := func(i int) {
			m := new(dns.Msg)
			m.SetQuestion(fmt.Sprintf("%d.%d.example.com.", i, round), dns.TypeA)
			m.Id = uint16(i)
			b, _ := m.Pack()
			c.Write(b)
		}
		begin := time.Now()
		for i := range questions {
			ask(i)
		}
		answered := map[uint16]bool{}
		inTime = 0
		buf := make([]byte, maxUDP)
		for tries := 0; len(answered) < questions; {
			c.SetReadDeadline(time.Now().Add(6 * time.Second))
			n, err := c.Read(buf)
			switch {
			case err != nil && tries < 2: // a full socket loses datagrams, and clients ask again
				tries++
				begin = time.Now()
				for i := range questions {
					if !answered[uint16(i)] {
						ask(i)
					}
				}
			case err != nil:
				t.Fatalf("%d of %d questions have no answer", questions-len(answered), questions)
			case n > headerLen:
				id := binary.BigEndian.Uint16(buf)
				if buf[3]&0xf != dns.RcodeServerFailure {
					t.Errorf("question %d: rcode %d", id, buf[3]&0xf)
				}
				if !answered[id] && time.Since(begin) < 5*time.Second*(1+slower/10) {
					inTime++
				}
				answered[id] = true
			}
		}
	}
	// Delays of the machine itself do not count: they also occur when nothing waits,
	// and they vary.
	for try := 1; ; try++ {
		quiet := localTimes(t, addr, func() { time.Sleep(time.Second) })
		busy := localTimes(t, addr, flood)
		t.Logf("nobody waits: %v", quiet)
		t.Logf("%d wait: %v; %d are answered in time", questions, busy, inTime)
		limit := slower*5*time.Millisecond + 2*quiet.p99
		if busy.p99 <= limit && inTime >= questions*99/100 {
			return
		}
		if try == 4 {
			t.Fatalf("p99 of local names is %v, want at most %v; %d of %d questions are answered in time", busy.p99, limit, inTime, questions)
		}
	}
}
