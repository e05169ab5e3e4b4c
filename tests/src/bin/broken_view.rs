//! A view that takes the terminal and then breaks: for the test that the terminal is given back all the same.

fn main() -> std::io::Result<()> {
    let mut screen = memprof::terminal::Screen::take()?;
    screen.draw(|frame| frame.render_widget("the view", frame.area()))?;
    screen.wait()?;
    panic!("the view broke");
}
