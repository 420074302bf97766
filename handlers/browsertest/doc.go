// Package browsertest drives a real browser, headless Chromium, for the tests of what people see.
//
//	page := browsertest.Open(t, server.URL+"/preferences/"+token, browsertest.View{Dark: true})
//	page.Click(`button[type="submit"]`)
//	page.Screenshot("saved")
//	page.CheckAccessible()
//
// One browser serves a test binary and ends with it. Each page is a tab in a browser context of its own, with no cookies,
// no cache and no history, so that tests run in parallel. What a page complains of, on the console or by its content
// security policy, fails the test when it ends, unless the test takes it with [Page.Problems].
//
// Chromium is looked for on PATH and in the usual places; DISPATCH_LEDGER_CHROMIUM names another. `.ci/need chromium` installs one.
package browsertest
