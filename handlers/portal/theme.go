package portal

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Theme is a brand's looks, from a YAML file. Every field may be absent.
type Theme struct {
	Brand      string `yaml:"brand"`       // the name that customers know
	Logo       string `yaml:"logo"`        // file beside the theme: SVG, PNG, WebP or JPEG, at most 256 KiB
	Accent     string `yaml:"accent"`      // #rrggbb: buttons, switches, links on light
	AccentDark string `yaml:"accent_dark"` // the same on dark
	Font       string `yaml:"font"`        // CSS font-family
	Radius     int    `yaml:"radius"`      // of corners, in CSS pixels
	Privacy    string `yaml:"privacy"`     // address of the privacy notice, https
	Contact    string `yaml:"contact"`     // e-mail address for whoever has a question
	Language   string `yaml:"language"`    // when the browser asks for none that there is
	Locales    string `yaml:"locales"`     // directory beside the theme with more texts, or other ones

	// Offer says what the preference centre asks about, by channel. Absent, it is what the ledger's targets ask consent for.
	Offer map[domain.Channel][]domain.Purpose `yaml:"offer"`

	logo               []byte
	logoName, logoType string
}

// The plain theme's colours, and the grounds that every theme stands on.
const (
	plainAccent     = "#1f5fbf"
	plainAccentDark = "#9cc2ff"
	groundLight     = "#ffffff"
	groundDark      = "#1b2029"
	plainFont       = `system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif`
)

const logoMax = 256 << 10

var logoTypes = map[string]string{".svg": "image/svg+xml", ".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}

// ReadTheme reads a theme file. The error says which field is wrong, and what to do.
func ReadTheme(path string) (Theme, error) {
	var t Theme
	text, err := os.ReadFile(path)
	if err != nil {
		return t, fmt.Errorf("theme: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(text, &t, yaml.Strict()); err != nil {
		return t, fmt.Errorf("theme %s: %w", path, err)
	}
	beside := func(name string) string {
		if name == "" || filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(filepath.Dir(path), name)
	}
	t.Logo, t.Locales = beside(t.Logo), beside(t.Locales)
	if t, err = t.complete(); err != nil {
		return t, fmt.Errorf("theme %s: %w", path, err)
	}
	return t, nil
}

var fontShape = regexp.MustCompile(`^[A-Za-z0-9 ,"'_-]{1,200}$`)

// complete fills in what is absent and refuses what cannot be shown, or not be read.
func (t Theme) complete() (Theme, error) {
	for field, fallback := range map[*string]string{&t.Accent: plainAccent, &t.AccentDark: plainAccentDark, &t.Font: plainFont, &t.Language: "en"} {
		if *field == "" {
			*field = fallback
		}
	}
	for _, c := range []struct{ name, colour, ground string }{{"accent", t.Accent, groundLight}, {"accent_dark", t.AccentDark, groundDark}} {
		ratio, err := contrast(c.colour, c.ground)
		if err != nil {
			return t, fmt.Errorf("%s: %w", c.name, err)
		}
		if ratio < 4.5 {
			return t, fmt.Errorf("%s: %s on %s has a contrast of %.1f:1, and WCAG asks for 4.5:1; choose a %s one", c.name, c.colour, c.ground, ratio,
				map[bool]string{true: "darker", false: "lighter"}[c.ground == groundLight])
		}
	}
	if !fontShape.MatchString(t.Font) {
		return t, fmt.Errorf("font: %q is no list of font families", t.Font)
	}
	if t.Radius < 0 || t.Radius > 40 {
		return t, fmt.Errorf("radius: %d is not between 0 and 40", t.Radius)
	}
	if t.Privacy != "" {
		if u, err := url.Parse(t.Privacy); err != nil || u.Scheme != "https" || u.Host == "" {
			return t, fmt.Errorf("privacy: %q is no https address", t.Privacy)
		}
	}
	if t.Contact != "" {
		if a, err := mail.ParseAddress(t.Contact); err != nil || a.Address != t.Contact {
			return t, fmt.Errorf("contact: %q is no e-mail address", t.Contact)
		}
	}
	for channel, purposes := range t.Offer {
		if !slices.Contains(domain.Channels, channel) {
			return t, fmt.Errorf("offer: %q is no channel; they are %v", channel, domain.Channels)
		}
		for _, purpose := range purposes {
			if !slices.Contains(domain.Purposes[1:], purpose) {
				return t, fmt.Errorf("offer: %q is no purpose; they are %v", purpose, domain.Purposes[1:])
			}
		}
	}
	return t.withLogo()
}

func (t Theme) withLogo() (Theme, error) {
	if t.Logo == "" || t.logo != nil {
		return t, nil
	}
	var known bool
	if t.logoType, known = logoTypes[strings.ToLower(filepath.Ext(t.Logo))]; !known {
		return t, fmt.Errorf("logo: %s is no SVG, PNG, WebP or JPEG file", t.Logo)
	}
	var err error
	if t.logo, err = os.ReadFile(t.Logo); err != nil {
		return t, fmt.Errorf("logo: %w", err)
	}
	if len(t.logo) > logoMax {
		return t, fmt.Errorf("logo: %s has %d bytes, more than %d", t.Logo, len(t.logo), logoMax)
	}
	sum := sha256.Sum256(t.logo)
	t.logoName = "logo-" + hex.EncodeToString(sum[:6]) + filepath.Ext(t.Logo)
	return t, nil
}

// css is the theme as variables of the style sheet. On a button stands black or white, whichever is read better.
func (t Theme) css() string {
	on := func(colour string) string {
		white, _ := contrast(colour, "#ffffff")
		if black, _ := contrast(colour, "#000000"); black > white {
			return "#000000"
		}
		return "#ffffff"
	}
	radius := "14px"
	if t.Radius > 0 {
		radius = strconv.Itoa(t.Radius) + "px"
	}
	return fmt.Sprintf(":root { --accent: %s; --on-accent: %s; --font: %s; --radius: %s }\n@media (prefers-color-scheme: dark) { :root { --accent: %s; --on-accent: %s } }\n",
		t.Accent, on(t.Accent), t.Font, radius, t.AccentDark, on(t.AccentDark))
}

var colourShape = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

// contrast is the contrast ratio of two colours, by WCAG 2.2: 1 for equal ones, 21 for black on white.
func contrast(a, b string) (float64, error) {
	var light [2]float64
	for i, colour := range []string{a, b} {
		if !colourShape.MatchString(colour) {
			return 0, fmt.Errorf("%q is no colour such as #1f5fbf", colour)
		}
		channel := func(hex string) float64 {
			n, err := strconv.ParseUint(hex, 16, 8)
			if err != nil {
				return 0 // not after the check above
			}
			v := float64(n) / 255
			if v <= 0.04045 {
				return v / 12.92
			}
			return math.Pow((v+0.055)/1.055, 2.4)
		}
		light[i] = 0.2126*channel(colour[1:3]) + 0.7152*channel(colour[3:5]) + 0.0722*channel(colour[5:7])
	}
	return (max(light[0], light[1]) + 0.05) / (min(light[0], light[1]) + 0.05), nil
}
