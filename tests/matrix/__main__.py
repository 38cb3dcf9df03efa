from matrix import page

print(page(), end="")
