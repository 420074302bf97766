package browsertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/gofrs/flock"
)

// EnvChromium names the environment variable with the path of a browser to use instead of the one that is found.
const EnvChromium = "DISPATCH_LEDGER_CHROMIUM"

// startTimeout bounds the browser's start, on a machine that does much else.
const startTimeout = 2 * time.Minute

// places are where Chromium and its relatives are installed. The first that is there is taken. `.ci/need` looks in the same.
var places = []string{
	"chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "headless-shell", "chrome", // on PATH
	"/usr/bin/chromium", "/usr/lib/chromium/chromium", "/usr/lib64/chromium-browser/chromium-browser", "/snap/bin/chromium",
	"/opt/google/chrome/chrome", "/opt/homebrew/bin/chromium",
	"/Applications/Chromium.app/Contents/MacOS/Chromium", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
}

func find() (string, error) {
	if path := os.Getenv(EnvChromium); path != "" {
		return path, nil
	}
	for _, place := range places {
		if path, err := exec.LookPath(place); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium is here: run .ci/need chromium, or name one in " + EnvChromium)
}

// shared is the browser of this test binary, started by the first page. Nobody stops it: the system kills it with the
// binary, and the next run removes what it left on disk.
var shared = sync.OnceValues(start)

const profilePrefix = "dispatch-ledger-browser-"

// start starts a browser and gives the context that its tabs are made from.
func start() (context.Context, error) {
	path, err := find()
	if err != nil {
		return nil, err
	}
	sweep()
	profile, err := os.MkdirTemp("", profilePrefix)
	if err != nil {
		return nil, err
	}
	// Held for as long as the binary lives. Its freedom tells the next run that the directory is nobody's.
	if err := flock.New(filepath.Join(profile, "in-use")).Lock(); err != nil {
		return nil, err
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path),
		chromedp.UserDataDir(profile),
		chromedp.WSURLReadTimeout(startTimeout),
		chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-extensions", true),
		chromedp.Flag("disable-default-apps", true),
		chromedp.Flag("disable-breakpad", true),
		chromedp.Flag("disable-dev-shm-usage", true), // small in containers
		chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("disable-features", "Translate,OptimizationHints,MediaRouter,AutofillServerCommunication"),
		chromedp.Flag("force-color-profile", "srgb"),
		chromedp.Flag("font-render-hinting", "none"),
		chromedp.Flag("password-store", "basic"),
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // as root Chromium refuses its sandbox
	}
	allocator, _ := chromedp.NewExecAllocator(context.Background(), options...)
	browser, _ := chromedp.NewContext(allocator)
	if err := chromedp.Do(browser); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return browser, nil
}

// sweep removes the directories of browsers whose test binary has ended.
func sweep() {
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), profilePrefix+"*"))
	for _, dir := range old {
		if free, err := flock.New(filepath.Join(dir, "in-use")).TryLock(); err == nil && free {
			_ = os.RemoveAll(dir)
		}
	}
}
