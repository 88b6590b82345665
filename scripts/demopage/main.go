// Command demopage is the web page that scripts/demo serves on its device, and the
// client that fetches it if there is no curl.
//
//	demopage serve ADDRESS           serve the page
//	demopage get PROXY URL           fetch URL through an HTTP proxy and print it
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

const page = "<!doctype html><title>kitchen-pi</title><h1>Hello from the kitchen.</h1><p>This page is served on the device's localhost only.\n"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demopage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		srv := &http.Server{Addr: args[1], ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, page)
		})}
		return srv.ListenAndServe()
	case len(args) == 3 && args[0] == "get":
		proxy, err := url.Parse("http://" + args[1])
		if err != nil {
			return err
		}
		c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{Proxy: http.ProxyURL(proxy)}}
		res, err := c.Get(args[2])
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("get %s: %s", args[2], res.Status)
		}
		_, err = io.Copy(os.Stdout, io.LimitReader(res.Body, 1<<20))
		return err
	}
	return fmt.Errorf("usage: demopage serve ADDRESS | get PROXY URL")
}
